"""`tokenkeeper roles`: database roles with no more privileges than web and worker need."""

from __future__ import annotations

import click

from cli.context import load_settings
from cli.output import make_epilog
from shared.db.schema.migrate import create_roles
from shared.db.schema.privileges import WEB, WORKER
from shared.db.schema.roles import Login

NEEDS = ("DATABASE_URL",)


@click.command("roles", epilog=make_epilog("tokenkeeper roles", needs=NEEDS))
def create_database_roles() -> None:
    """Create this database's group roles for web and worker, with the privileges that these need.

    Their names are tokenkeeper_web_DATABASE and tokenkeeper_worker_DATABASE. Where WEB_DATABASE_URL and
    WORKER_DATABASE_URL are set, also the logins that these name, each with its password and in its role. Run it after
    `migrate` with the same DATABASE_URL; it may be repeated.

    Commands that decrypt or write refresh tokens (`disconnect`, `import`, `keys rotate`) need the worker's login; with
    web's they say that it may not. docs/operations.md says what each role may do.
    """
    settings = load_settings(*NEEDS)
    urls = {WEB: settings.web_database_url, WORKER: settings.worker_database_url}
    logins = {process: Login.from_url(url) for process, url in urls.items() if url}
    for process, role in create_roles(settings.database_url, logins).items():
        if process in logins:
            click.echo(f"{role}: login {logins[process].name} is in it")
        else:
            click.echo(f'{role}: then run: GRANT "{role}" TO <{process}\'s login>')
