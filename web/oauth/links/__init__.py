"""Connect links, by which our own product says for which customer an account is connected (docs/connect-links.md).

- `reader.py`: reads and checks the link that a browser brings.
- `context.py`: what the rest of the handshake carries of it; `return_to.py`: back to our product, with the result.
- `wrong_account.py`: the link names an account, and another one was chosen.
"""
