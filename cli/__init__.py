"""The `tokenkeeper` command: `main.py` lists the subcommands, and each has a module or a folder of its name.

`context.py`, `resolve.py` and `output.py` are what several of them share.
"""
