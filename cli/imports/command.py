"""`tokenkeeper import`: takes over connections whose refresh tokens another system kept."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import BinaryIO

import click
from rich.progress import Progress

from cli.context import load_settings, open_database
from cli.imports.lines import ImportLine, RefusedLine, UnreadableFile, read_lines
from cli.imports.staging_file import StagedLine, StagingFile
from cli.output import json_option, make_epilog, open_progress, to_json_line
from shared.db.lifecycle.customers import CustomerStore
from shared.db.lifecycle.imports import ExistingConnection, ImportRow, ImportStore
from shared.domain.brake import MIN_REVOCATIONS
from shared.domain.connection import Status
from shared.domain.identity import DEFAULT_APP
from shared.settings.hubspot_app import HubSpotApp
from shared.token_cipher import DecryptionError, TokenCipher

NEEDS = ("DATABASE_URL", "TOKEN_KEYS")
#: In one statement.
BATCH_ROWS = 2000
#: Between two updates of the progress bar.
PROGRESS_LINES = 1000
#: An old table may contain more revoked tokens than the brake lets pass.
NEXT_STEPS = f"""\
They are due now; see: tokenkeeper status
If HubSpot reports more than {MIN_REVOCATIONS} of them as revoked, the revocation brake holds the rest and asks you.
If others are refreshed, answer: tokenkeeper revocations confirm. If none is: docs/moving-in.md"""


@dataclass(slots=True)
class Counts:
    """Of lines, by what became of them. The names are those of --json."""

    new: int = 0
    replaced: int = 0  #: revoked, or never worked: active with another token
    kept: int = 0  #: left alone: it works, or the token is the same
    repeated: int = 0  #: a later line has the same connection
    refused: int = 0

    @property
    def due(self) -> int:
        """Their first refresh is due because of this import."""
        return self.new + self.replaced

    def __str__(self) -> str:
        parts = [f"{self.new:,} new", f"{self.replaced:,} given another token", f"{self.kept:,} unchanged"]
        parts += [f"{self.repeated:,} repeated"] if self.repeated else []
        return ", ".join([*parts, f"{self.refused:,} refused"])


@click.command(
    "import",
    epilog=make_epilog(
        "tokenkeeper import accounts.csv", "psql -c 'COPY … TO STDOUT CSV HEADER' | tokenkeeper import -", needs=NEEDS
    ),
)
@click.argument("file", type=click.File("rb"))
@json_option
def import_connections(file: BinaryIO, as_json: bool) -> None:
    """Take over connections from FILE (`-`: standard input), due at once; running it twice is harmless.

    FILE is CSV with the header hub_id,refresh_token, or JSON lines with these two names; further columns are app (where
    there are several), user_id (of a user-level app) and customer. A connection that has worked is left alone, unless
    it is revoked: what is stored may be newer than the file. One that you disconnected comes back by an install only.
    One without a customer gets that of its line; another customer's is refused. Of several lines for one connection
    the last one counts. Refused lines are named on stderr, and the rest goes in; exit status 1 where there were any.

    A hundred thousand lines take some ten seconds. Where more than ten connections become due, it ends with a note on
    the revocation brake: an old table may contain more revoked tokens than the brake lets pass without asking
    (docs/moving-in.md).
    """
    settings = load_settings(*NEEDS)
    with open_database(settings) as engine, StagingFile() as staging, open_progress() as progress:
        cipher, apps = TokenCipher(settings.token_keys), settings.apps
        job = ImportJob(cipher, staging, progress, CustomerStore(engine), apps)
        try:
            job.stage_lines(file)
        except UnreadableFile as error:
            raise click.ClickException(f"nothing was imported: {error}") from None
        job.store_staged(ImportStore(engine))
    if as_json:
        click.echo(to_json_line(asdict(job.counts)))
    else:
        click.echo(str(job.counts))
        if job.counts.due > MIN_REVOCATIONS:
            click.echo(NEXT_STEPS)
    if job.counts.refused:
        sys.exit(1)


class ImportJob:
    """First every line is read and staged, then the staged lines are stored in batches."""

    def __init__(
        self,
        cipher: TokenCipher,
        staging: StagingFile,
        progress: Progress,
        customers: CustomerStore,
        apps: Mapping[str, HubSpotApp],
    ) -> None:
        """`apps`: of the settings; none where they describe none."""
        self.counts = Counts()
        self._customers = customers
        self._apps = apps
        only = next(iter(apps)) if len(apps) == 1 else DEFAULT_APP
        self._default_app = only if only in apps or not apps else None
        self._cipher = cipher
        self._staging = staging
        self._progress = progress

    def stage_lines(self, file: BinaryIO) -> None:
        """Raises UnreadableFile."""
        task = self._progress.add_task("reading", total=None)
        for count, line in enumerate(read_lines(file), start=1):
            if isinstance(line, RefusedLine):
                self._refuse(line.number, line.reason)
            else:
                self._stage(line)
            if count % PROGRESS_LINES == 0:
                self._progress.update(task, completed=count)
        self._progress.remove_task(task)

    def store_staged(self, store: ImportStore) -> None:
        """Raises StoreUnavailable; earlier batches stay stored, and the import may be run again."""
        task = self._progress.add_task("storing", total=len(self._staging))
        for batch in self._staging.read_batches(BATCH_ROWS):
            existing = store.find_existing([line.identity for line in batch])
            rows = [row for line in batch if (row := self._make_row(line, existing.get(line.identity)))]
            result = store.import_rows(rows)
            self.counts.new += len(result.new)
            self.counts.replaced += len(result.replaced)
            self._progress.advance(task, len(batch))

    def _stage(self, line: ImportLine) -> None:
        app = line.app or self._default_app
        if problem := self._find_problem(app, line.user_id):
            self._refuse(line.number, problem)
            return
        ciphertext = self._cipher.encrypt_refresh_token(line.hub_id, line.refresh_token)
        staged = StagedLine(line.hub_id, line.number, ciphertext, app or DEFAULT_APP, line.user_id, line.customer)
        earlier = self._staging.put_line(staged)
        if earlier is not None:
            self.counts.repeated += 1
            self._report(earlier, f"replaced by line {line.number}, same hub {line.hub_id}")

    def _make_row(self, line: StagedLine, existing: ExistingConnection | None) -> ImportRow | None:
        """None where the connection is left as it is, or the line is refused."""
        if existing is None:
            return self._make_import_row(line)
        if line.customer is not None and existing.customer not in (None, line.customer):
            self._refuse(line.number, f"hub {line.hub_id} belongs to another customer; see: tokenkeeper claim --help")
            return None
        if existing.status is Status.DISCONNECTED:
            self._refuse(line.number, f"hub {line.hub_id} was disconnected here: connect it by an install")
            return None
        if existing.is_replaceable and not self._is_same_token(line, existing):
            return self._make_import_row(line, may_replace=True)
        if line.customer is not None and existing.customer is None:
            self._customers.set_customer(line.identity, line.customer, may_move=False)
        self.counts.kept += 1
        return None

    def _make_import_row(self, line: StagedLine, *, may_replace: bool = False) -> ImportRow:
        return ImportRow(
            line.hub_id,
            line.encrypted_refresh_token,
            app=line.app,
            user_id=line.user_id,
            customer=line.customer,
            may_replace=may_replace,
        )

    def _find_problem(self, app: str | None, user_id: int | None) -> str:
        """Of what a line says of app and user; empty: none. Without settings of an app every name is taken."""
        if not self._apps:
            return ""
        if app is None or app not in self._apps:
            return f"app must be one of the settings': {', '.join(self._apps)}"
        if self._apps[app].is_user_level and user_id is None:
            return f"app {app} is user-level: user_id must say whose token it is"
        if not self._apps[app].is_user_level and user_id is not None:
            return f"app {app} is account-level: leave user_id out"
        return ""

    def _is_same_token(self, line: StagedLine, existing: ExistingConnection) -> bool:
        """A stored token that no key decrypts is useless, so it counts as another one."""
        try:
            stored = self._cipher.decrypt_refresh_token(line.hub_id, existing.encrypted_refresh_token or "")
        except DecryptionError:
            return False
        return stored == self._cipher.decrypt_refresh_token(line.hub_id, line.encrypted_refresh_token)

    def _refuse(self, number: int, reason: str) -> None:
        self.counts.refused += 1
        self._report(number, f"refused: {reason}")

    def _report(self, number: int, what: str) -> None:
        click.echo(f"line {number}: {what}", err=True)
