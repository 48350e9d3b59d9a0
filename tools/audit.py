"""Asks the index which of the locked versions have known vulnerabilities: `make audit`.

pip-audit calls it well where the index knows nothing of a package, or of anything. So a version that is known to be
vulnerable is asked for too, and what was not looked at is said. Exit status 0: none; 1: some; 2: nobody can tell.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = (
    "requirements/production.lock",
    "requirements/tracing.lock",
    "requirements/dev.lock",
    "requirements/build.lock",
)
#: CVE-2019-10906 and others.
CANARY = "jinja2==2.10"
SECONDS = 600


@dataclass
class Report:
    vulnerable: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)  #: packages that nothing is known of
    looked_at: int = 0


class Unreachable(Exception):
    """In a few words, why."""


def main() -> int:
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as canary:
            canary.write(CANARY + "\n")
            canary.flush()
            proof = report(asked(Path(canary.name)))
        reports = {lock: report(asked(ROOT / lock)) for lock in LOCKS}
    except Unreachable as error:
        print(f"audit: NOTHING WAS AUDITED: the index's vulnerability data cannot be reached: {error}", file=sys.stderr)
        return 2
    return told(proof, reports)


def asked(requirements: Path) -> str:
    """pip-audit's own report, as JSON. Raises Unreachable."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--disable-pip", "--no-deps"]
    command += ["--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Unreachable(f"no answer within {SECONDS} s") from None
    if not done.stdout.strip():
        raise Unreachable(done.stderr.strip().rpartition("\n")[2][:200])
    return done.stdout


def report(output: str) -> Report:
    found = Report()
    for package in json.loads(output)["dependencies"]:
        if "skip_reason" in package:
            found.unseen.append(package["name"])
            continue
        found.looked_at += 1
        for known in package["vulns"]:
            mended = f", mended in {', '.join(known['fix_versions'])}" if known["fix_versions"] else ""
            found.vulnerable.append(f"{package['name']} {package['version']}: {known['id']}{mended}")
    return found


def told(proof: Report, reports: dict[str, Report]) -> int:
    for line in lines(reports):
        print(f"audit: {line}")
    if any(each.vulnerable for each in reports.values()):
        return 1
    if not proof.vulnerable:
        print(f"audit: NOTHING WAS AUDITED: this index knows of nothing even against {CANARY}", file=sys.stderr)
        return 2
    if any(each.unseen for each in reports.values()):
        return 2
    print("audit: no known vulnerability")
    return 0


def lines(reports: dict[str, Report]) -> Iterator[str]:
    for lock, each in reports.items():
        yield f"{lock}: {each.looked_at} of {each.looked_at + len(each.unseen)} looked at"
        yield from (f"{lock}: VULNERABLE: {known}" for known in each.vulnerable)
        if each.unseen and each.looked_at:
            yield f"{lock}: NOT LOOKED AT, the index knows nothing of them: {', '.join(each.unseen)}"


if __name__ == "__main__":
    sys.exit(main())
