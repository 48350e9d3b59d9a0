"""`tokenkeeper doctor`: `command` prints what `checks` and `outside_checks` find."""
