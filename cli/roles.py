"""`tokenkeeper roles`: database roles with no more power than web and worker need."""

from __future__ import annotations

import click

from cli.context import settings
from cli.output import example
from shared.db.schema.migrate import create_roles
from shared.db.schema.privileges import WEB, WORKER
from shared.db.schema.roles import Login


@click.command("roles", epilog=example("tokenkeeper roles"))
def run() -> None:
    """Make the roles tokenkeeper_web and tokenkeeper_worker, and give them the privileges that web and worker need.

    Where WEB_DATABASE_URL and WORKER_DATABASE_URL are set, also the logins that these name, each with its password and
    in its role. Run it after `migrate` with the same DATABASE_URL; it may be repeated.
    """
    ours = settings("DATABASE_URL")
    urls = {WEB: ours.web_database_url, WORKER: ours.worker_database_url}
    logins = {role: Login.from_url(url) for role, url in urls.items() if url}
    create_roles(ours.database_url, logins)
    for role in urls:
        login = f"login {logins[role].name} is in it" if role in logins else f"GRANT {role} TO a login of yours"
        click.echo(f"{role}: {login}")
