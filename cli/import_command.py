"""`tokenkeeper import`: takes over connections, refresh tokens that somebody else was keeping."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO

import click
from rich.progress import Progress

from cli.context import database, settings
from cli.import_lines import Line, Refused, Unreadable, read
from cli.json_output import json_line, json_option
from cli.output import example, progress
from cli.staging_file import StagingFile, Waiting
from shared.db.lifecycle.imports import ExistingConnection, ImportRow, ImportStore
from shared.domain.brake import MIN_REVOCATIONS
from shared.domain.connection import Status
from shared.token_cipher import DecryptionError, TokenCipher

#: Rows in one statement.
BATCH = 2000
#: Lines between two movements of the bar.
STRIDE = 1000
#: An old table may hold more dead tokens than the brake lets pass: nobody should meet it unprepared.
NEXT = f"""\
They are due now; see: tokenkeeper status
If HubSpot calls more than {MIN_REVOCATIONS} of them dead, the revocation brake holds the rest and asks you.
If others are refreshed, answer: tokenkeeper revocations confirm. If none is: docs/moving-in.md"""


@dataclass(slots=True)
class Tally:
    """What became of the lines."""

    new: int = 0
    replaced: int = 0  #: revoked, or never worked: active with another token
    kept: int = 0  #: left alone: it works, or the token is the same
    repeated: int = 0  #: a later line spoke of the same hub
    refused: int = 0

    @property
    def due(self) -> int:
        """Their first refresh is due by this import."""
        return self.new + self.replaced

    def __str__(self) -> str:
        parts = [f"{self.new:,} new", f"{self.replaced:,} given another token", f"{self.kept:,} left as they are"]
        parts += [f"{self.repeated:,} repeated"] if self.repeated else []
        return ", ".join([*parts, f"{self.refused:,} refused"])


@click.command(
    "import",
    epilog=example("tokenkeeper import accounts.csv", "psql -c 'COPY … TO STDOUT CSV HEADER' | tokenkeeper import -"),
)
@click.argument("file", type=click.File("rb"))
@json_option
def import_(file: BinaryIO, as_json: bool) -> None:
    """Take over connections from FILE (`-`: standard input), due at once; running it twice is harmless.

    FILE is CSV with the header hub_id,refresh_token, or JSON lines with these two names. A connection that has worked
    is left alone, unless it is revoked: what is stored may be newer than the file. One that you disconnected comes
    back by an install only. Of several lines for one hub the last one counts. Refused lines are named on stderr, and
    the rest goes in; exit status 1 where there were any.
    """
    ours = settings("DATABASE_URL", "TOKEN_KEYS")
    with database(ours) as engine, StagingFile() as shelf, progress() as shown:
        intake = Intake(TokenCipher(ours.token_keys), shelf, shown)
        try:
            intake.fill(file)
        except Unreadable as error:
            raise click.ClickException(f"nothing was imported: {error}") from None
        intake.empty_into(ImportStore(engine))
    if as_json:
        click.echo(json_line(asdict(intake.tally)))
    else:
        click.echo("\n".join([str(intake.tally), *([NEXT] if intake.tally.due > MIN_REVOCATIONS else [])]))
    if intake.tally.refused:
        sys.exit(1)


class Intake:
    """First every line is read and shelved, then what waits is stored, thousands at a time."""

    def __init__(self, cipher: TokenCipher, shelf: StagingFile, shown: Progress) -> None:
        self.tally = Tally()
        self._vault = cipher
        self._shelf = shelf
        self._shown = shown

    def fill(self, file: BinaryIO) -> None:
        """Raises Unreadable."""
        task = self._shown.add_task("reading", total=None)
        for count, line in enumerate(read(file), start=1):
            if isinstance(line, Refused):
                self._refuse(line.number, line.why)
            else:
                self._shelve(line)
            if count % STRIDE == 0:
                self._shown.update(task, completed=count)
        self._shown.remove_task(task)

    def empty_into(self, store: ImportStore) -> None:
        """Raises StoreUnavailable; what went in before stays in, and the import may be run again."""
        task = self._shown.add_task("storing", total=len(self._shelf))
        for batch in self._shelf.batches(BATCH):
            self._store(batch, store)
            self._shown.advance(task, len(batch))

    def _shelve(self, line: Line) -> None:
        sealed = self._vault.encrypt_refresh_token(line.hub_id, line.refresh_token)
        if (before := self._shelf.put(Waiting(line.hub_id, line.number, sealed))) is not None:
            self.tally.repeated += 1
            self._say(before, f"not taken: line {line.number} is of the same hub, {line.hub_id}, and counts")

    def _store(self, batch: list[Waiting], store: ImportStore) -> None:
        standing = store.find_existing([waiting.hub_id for waiting in batch])
        imported = store.import_rows(list(self._rows(batch, standing)))
        self.tally.new += len(imported.new)
        self.tally.replaced += len(imported.replaced)

    def _rows(self, batch: list[Waiting], standing: dict[int, ExistingConnection]) -> Iterator[ImportRow]:
        for waiting in batch:
            here = standing.get(waiting.hub_id)
            if here is None:
                yield ImportRow(waiting.hub_id, waiting.encrypted_refresh_token)
            elif here.status is Status.DISCONNECTED:
                self._refuse(waiting.number, f"hub {waiting.hub_id} was disconnected here: connect it by an install")
            elif here.is_replaceable and not self._same(waiting, here):
                yield ImportRow(waiting.hub_id, waiting.encrypted_refresh_token, may_replace=True)
            else:
                self.tally.kept += 1

    def _same(self, waiting: Waiting, here: ExistingConnection) -> bool:
        """Whether the token is the one that is stored. One that does not open is worth nothing, so it is not."""
        try:
            stored = self._vault.decrypt_refresh_token(waiting.hub_id, here.encrypted_refresh_token or "")
        except DecryptionError:
            return False
        return stored == self._vault.decrypt_refresh_token(waiting.hub_id, waiting.encrypted_refresh_token)

    def _refuse(self, number: int, why: str) -> None:
        self.tally.refused += 1
        self._say(number, f"refused: {why}")

    def _say(self, number: int, what: str) -> None:
        click.echo(f"line {number}: {what}", err=True)
