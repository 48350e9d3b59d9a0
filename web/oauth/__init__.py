"""The OAuth handshake: all that a customer sees.

- `handshake.py`: the front page, /install and /oauth/callback.
- `code_exchange.py`: exchanges the code.
- `state.py`: the OAuth state.
- `install_storage.py`: hands a grant to the queue or the database.
- `install_status.py` and `install_cookie.py`: the page that waits until the grant is stored, and who may see it.
- `scope_descriptions.py`: HubSpot's scopes in words.
"""
