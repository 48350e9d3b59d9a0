"""Prints a connect link: python link.py CUSTOMER [RETURN_TO]. Needs PyJWT."""

import os
import sys
import time
import uuid

import jwt

TOKENKEEPER = os.environ["TOKENKEEPER_URL"]  # https://connect.example.com
KEY = os.environ["CONNECT_LINK_KEY"]  # the first of tokenkeeper's CONNECT_LINK_KEYS

claims = {"customer": sys.argv[1], "exp": int(time.time()) + 30 * 60, "jti": str(uuid.uuid4())}
if len(sys.argv) > 2:  # noqa: PLR2004
    claims["return_to"] = sys.argv[2]
print(f"{TOKENKEEPER}/connect/{jwt.encode(claims, KEY, algorithm='HS256')}")
