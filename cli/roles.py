"""`tokenkeeper roles`: database roles with no more privileges than web and worker need."""

from __future__ import annotations

import click

from cli.context import load_settings
from cli.output import make_epilog
from shared.db.schema.migrate import create_roles
from shared.db.schema.privileges import WEB, WORKER
from shared.db.schema.roles import Login

NEEDS = ("DATABASE_URL",)
OWNERS = {WEB: "web", WORKER: "worker"}


@click.command("roles", epilog=make_epilog("tokenkeeper roles", needs=NEEDS))
def create_database_roles() -> None:
    """Create the roles tokenkeeper_web and tokenkeeper_worker, and grant them the privileges that web and worker need.

    Where WEB_DATABASE_URL and WORKER_DATABASE_URL are set, also the logins that these name, each with its password and
    in its role. Run it after `migrate` with the same DATABASE_URL; it may be repeated.

    Commands that decrypt or write refresh tokens (`disconnect`, `import`, `keys rotate`) need the worker's login; with
    web's they say that it may not. docs/operations.md says what each role may do.
    """
    settings = load_settings(*NEEDS)
    urls = {WEB: settings.web_database_url, WORKER: settings.worker_database_url}
    logins = {role: Login.from_url(url) for role, url in urls.items() if url}
    create_roles(settings.database_url, logins)
    for role in urls:
        if role in logins:
            click.echo(f"{role}: login {logins[role].name} is in it")
        else:
            click.echo(f"{role}: then run: GRANT {role} TO <{OWNERS[role]}'s login>")
