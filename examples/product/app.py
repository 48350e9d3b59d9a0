"""A product with two customers, which connects their HubSpot accounts by connect links.

    flask --app examples/product/app.py run --port 3000        (docs/connect-links.md has the rest)

A customer's page shows what the database says, never what the address says: anyone can type `?status=connected`. A real
product takes the customer from the session of the person who is signed in, not from the path.
"""

import os
import time
import uuid

import jwt
import psycopg2
from flask import Flask, abort, redirect, request
from markupsafe import escape
from werkzeug.wrappers import Response

TOKENKEEPER, KEY = os.environ["TOKENKEEPER_URL"], os.environ["CONNECT_LINK_KEY"]
PRODUCT = os.environ.get("PRODUCT_URL", "http://localhost:3000")
DATABASE = os.environ.get("DATABASE_URL", "")  # empty: libpq's variables, PGHOST, PGUSER …
CUSTOMERS = {"acme": "Acme Ltd", "globex": "Globex Corporation"}
app = Flask(__name__)


@app.get("/<customer>")
def show(customer: str) -> str:
    name = CUSTOMERS.get(customer) or abort(404)
    hubs = read_hubs(customer)
    state = f"connected: {', '.join(hubs)}" if hubs else "not connected"
    button = f'<a href="/{customer}/connect">Connect HubSpot</a>'
    head = f'<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>{escape(name)}</title>'
    return f"{head}<h1>{escape(name)}</h1><p>{state}</p>{button}"


@app.get("/<customer>/connect")
def connect(customer: str) -> Response:
    return redirect(f"{TOKENKEEPER}/connect/{make_link(customer)}")


@app.get("/hubspot/sign-in")
def sign_in() -> Response:
    """For installs from HubSpot's Marketplace: here the person would sign in first. Acme's always does."""
    back = request.args["continue"]
    return redirect(f"{back}&link={make_link('acme')}") if back.startswith(f"{TOKENKEEPER}/") else abort(400)


def make_link(customer: str) -> str:
    name = CUSTOMERS.get(customer) or abort(404)
    claims = {"customer": customer, "name": name, "exp": int(time.time()) + 600, "jti": str(uuid.uuid4())}
    return jwt.encode(claims | {"return_to": f"{PRODUCT}/{customer}"}, KEY, algorithm="HS256")


def read_hubs(customer: str) -> list[str]:
    with psycopg2.connect(DATABASE) as connection, connection.cursor() as cursor:
        # hubspot.tokens has the token of each; after an outage that may be some seconds later.
        cursor.execute(
            "SELECT hub_id FROM hubspot.connections WHERE customer = %s AND status = 'active' ORDER BY hub_id",
            (customer,),
        )
        return [str(hub_id) for (hub_id,) in cursor]
