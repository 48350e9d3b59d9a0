"""Write the lock files, or check that they are in step with pyproject.toml: `python tools/lock.py [--check]`.

Four files: what the product runs on, that plus tracing, all of it plus the sandbox and the developers' tools, and what
builds the project's wheel. Every version is exact and hashed; no index address is recorded. The check needs no network:
it walks the requirements of what is installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
#: What each holds: the project's dependencies with these extras, or (None) the build system's requirements.
LOCKS: dict[str, tuple[str, ...] | None] = {
    "requirements/production.lock": (),
    "requirements/tracing.lock": ("otel",),
    "requirements/dev.lock": ("otel", "sandbox", "dev"),
    "requirements/build.lock": None,
}
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)")


def main() -> int:
    if sys.argv[1:] == ["--check"]:
        problems = [problem for name, extras in LOCKS.items() for problem in check(ROOT / name, extras)]
        print("\n".join(problems) or "lock files are in step with pyproject.toml")
        return 1 if problems else 0
    for name, extras in LOCKS.items():
        write(name, extras)
    return 0


def write(name: str, extras: tuple[str, ...] | None) -> None:
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--universal"]
    command += ["--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--no-annotate"]
    command += ["--custom-compile-command", "make lock", "--output-file", name]
    wanted = "\n".join(map(str, declared(extras)))
    subprocess.run(command, cwd=ROOT, check=True, input=wanted, text=True)


def check(lock: Path, extras: tuple[str, ...] | None) -> list[str]:
    text = lock.read_text() if lock.exists() else ""
    pins = {canonicalize_name(m[1]): m[2] for line in text.splitlines() if (m := PIN.match(line))}
    problems = [f"{lock.name}: {name} has no hash" for name in pins if not hashed(name, text)]
    if re.search(r"https?://", text):
        problems.append(f"{lock.name}: an address is recorded")
    needed = closure(declared(extras))
    for requirement in needed:
        name = canonicalize_name(requirement.name)
        if name not in pins:
            problems.append(f"{lock.name}: {name} is needed and not locked: run make lock")
        elif not requirement.specifier.contains(pins[name], prereleases=True):
            problems.append(f"{lock.name}: {name}=={pins[name]} does not meet {requirement}: run make lock")
    return problems


def hashed(name: str, text: str) -> bool:
    spelled = "[-_.]".join(map(re.escape, name.split("-")))
    return re.search(rf"(?im)^{spelled}==[^\n]*\\\n\s+--hash=sha256:", text) is not None


def declared(extras: tuple[str, ...] | None) -> list[Requirement]:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    if extras is None:
        return [Requirement(line) for line in pyproject["build-system"]["requires"]]
    project = pyproject["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    return [Requirement(line) for group in groups for line in group]


def closure(wanted: list[Requirement]) -> list[Requirement]:
    """Everything that `wanted` asks for on this machine, as far as what is installed can tell."""
    seen: dict[str, Requirement] = {}
    while wanted:
        requirement = wanted.pop()
        if str(requirement) in seen:
            continue
        seen[str(requirement)] = requirement
        try:
            lines = requires(requirement.name) or []
        except PackageNotFoundError:
            continue
        extras = requirement.extras or {""}
        wanted += [below for below in map(Requirement, lines) if applies(below, extras)]
    return list(seen.values())


def applies(requirement: Requirement, extras: set[str]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)


if __name__ == "__main__":
    sys.exit(main())
