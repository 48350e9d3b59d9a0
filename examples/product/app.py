"""A product with two customers, which connects their HubSpot accounts by connect links.

The customer's page shows what the database says, never what the address says: anyone can type `?status=connected`. A
real product takes the customer from the session of the person who is signed in, not from the path.
"""

import os
import time
import uuid

import jwt
import psycopg2
from flask import Flask, abort, redirect
from markupsafe import escape
from werkzeug.wrappers import Response

TOKENKEEPER, KEY = os.environ["TOKENKEEPER_URL"], os.environ["CONNECT_LINK_KEY"]
PRODUCT = os.environ.get("PRODUCT_URL", "http://localhost:3000")
CUSTOMERS = {"acme": "Acme Ltd", "globex": "Globex Corporation"}
app = Flask(__name__)


@app.get("/<customer>")
def show(customer: str) -> str:
    name = CUSTOMERS.get(customer) or abort(404)
    hubs = read_hubs(customer)
    state = f"connected: {', '.join(hubs)}" if hubs else f'<a href="/{customer}/connect">Connect HubSpot</a>'
    return f'<!doctype html><html lang="en"><title>{escape(name)}</title><h1>{escape(name)}</h1><p>{state}</p></html>'


@app.get("/<customer>/connect")
def connect(customer: str) -> Response:
    name = CUSTOMERS.get(customer) or abort(404)
    claims = {"customer": customer, "name": name, "exp": int(time.time()) + 600, "jti": str(uuid.uuid4())}
    link = jwt.encode(claims | {"return_to": f"{PRODUCT}/{customer}"}, KEY, algorithm="HS256")
    return redirect(f"{TOKENKEEPER}/connect/{link}")


def read_hubs(customer: str) -> list[str]:
    with psycopg2.connect("") as connection, connection.cursor() as cursor:  # libpq's variables: PGHOST, PGUSER …
        cursor.execute("SELECT hub_id FROM hubspot.tokens WHERE customer = %s ORDER BY hub_id", (customer,))
        return [str(hub_id) for (hub_id,) in cursor]
