"""The OAuth handshake: all that a customer sees.

- `front_page.py`, `connect_page.py`: where it begins, without and with a connect link.
- `handshake.py`: /install and /oauth/callback; `consent.py`: to HubSpot's consent page and back.
- `marketplace.py` and its `marketplace_request.py`, `marketplace_state.py`: installs that HubSpot's Marketplace begins.
- `code_exchange.py`: exchanges the code; `exchange_limits.py`: what invented codes may cost.
- `state.py`: the OAuth state.
- `link_reader.py`, `link_context.py`, `link_return.py`: a connect link, what is carried of it, and the way back.
- `wrong_account.py`: for a link that names an account, another one was chosen.
- `install_storage.py`: hands a grant to the queue or the database.
- `install_status.py` and `install_cookie.py`: the page that waits until the grant is stored, and who may see it.
- `scope_descriptions.py`: HubSpot's scopes in words.
"""
