"""Writes the lock files, or checks that they match pyproject.toml: `python tools/lock.py [--check]`.

Four files: the product's dependencies, those plus tracing, those plus the sandbox and the developers' tools, and what
builds the project's wheel. Every version is exact and hashed; no index address is recorded. The check needs no network:
it follows the requirements of the installed packages.
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
#: Each contains the project's dependencies with these extras, or (None) the build system's requirements.
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
        print("\n".join(problems) or "the lock files match pyproject.toml")
        return 1 if problems else 0
    for name, extras in LOCKS.items():
        write(name, extras)
    return 0


def write(name: str, extras: tuple[str, ...] | None) -> None:
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--universal"]
    command += ["--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--no-annotate"]
    command += ["--custom-compile-command", "make lock", "--output-file", name]
    requirements = "\n".join(map(str, read_requirements(extras)))
    subprocess.run(command, cwd=ROOT, check=True, input=requirements, text=True)


def check(lock: Path, extras: tuple[str, ...] | None) -> list[str]:
    text = lock.read_text() if lock.exists() else ""
    pins = {canonicalize_name(m[1]): m[2] for line in text.splitlines() if (m := PIN.match(line))}
    problems = [f"{lock.name}: {name} has no hash" for name in pins if not has_hash(name, text)]
    if re.search(r"https?://", text):
        problems.append(f"{lock.name}: it contains an index address")
    for requirement in list_closure(read_requirements(extras)):
        name = canonicalize_name(requirement.name)
        if name not in pins:
            problems.append(f"{lock.name}: {name} is needed and not locked: run make lock")
        elif not requirement.specifier.contains(pins[name], prereleases=True):
            problems.append(f"{lock.name}: {name}=={pins[name]} does not meet {requirement}: run make lock")
    return problems


def has_hash(name: str, text: str) -> bool:
    pattern = "[-_.]".join(map(re.escape, name.split("-")))
    return re.search(rf"(?im)^{pattern}==[^\n]*\\\n\s+--hash=sha256:", text) is not None


def read_requirements(extras: tuple[str, ...] | None) -> list[Requirement]:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    if extras is None:
        return [Requirement(line) for line in pyproject["build-system"]["requires"]]
    project = pyproject["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    return [Requirement(line) for group in groups for line in group]


def list_closure(requirements: list[Requirement]) -> list[Requirement]:
    """`requirements` and all that they depend on, on this machine, according to the installed packages."""
    result: dict[str, Requirement] = {}
    pending = list(requirements)
    while pending:
        requirement = pending.pop()
        if str(requirement) in result:
            continue
        result[str(requirement)] = requirement
        try:
            lines = requires(requirement.name) or []
        except PackageNotFoundError:
            continue
        extras = requirement.extras or {""}
        pending += [dependency for dependency in map(Requirement, lines) if applies(dependency, extras)]
    return list(result.values())


def applies(requirement: Requirement, extras: set[str]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)


if __name__ == "__main__":
    sys.exit(main())
