"""`tokenkeeper import`: `command` reads all `lines`, stages them in a `staging_file`, then stores them."""
