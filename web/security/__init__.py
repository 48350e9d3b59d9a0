"""What protects the pages: the operator's password, CSRF tokens, cookies, rate limits, headers."""
