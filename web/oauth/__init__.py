"""The OAuth handshake: all that a customer sees.

- `front_page.py`, `connect_page.py`: where a person begins, without and with a connect link.
- `handshake.py`: /install and /oauth/callback.
- `consent.py`: to HubSpot's consent page and back; `state.py`: the OAuth state.
- `code_exchange.py`: exchanges the code; `exchange_limits.py`: what invented codes may cost.
- `install_storage.py`: hands a grant to the queue or the database.
- `install_status.py`, `install_cookie.py`: the page that waits until the grant is stored, and who may see it.
- `links/`: connect links, by which our own product says for which customer an account is connected.
- `marketplace/`: installs that HubSpot's Marketplace begins.
- `scope_descriptions.py`: HubSpot's scopes in words.
"""
