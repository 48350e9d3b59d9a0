"""Asks the package index which of the locked versions have known vulnerabilities: `make audit`.

pip-audit reports success where the index has no data on a package, or no vulnerability data at all. So this also asks
about a version with a known vulnerability, and lists packages without data. Exit status 0: none; 1: some; 2: unknown.
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
#: Has CVE-2019-10906 and others.
KNOWN_VULNERABLE = "jinja2==2.10"
TIMEOUT_SECONDS = 600


@dataclass
class Report:
    vulnerable: list[str] = field(default_factory=list)
    without_data: list[str] = field(default_factory=list)  #: packages that the index does not know
    audited: int = 0


class Unreachable(Exception):
    """The index gave no answer; the message says why."""


def main() -> int:
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(KNOWN_VULNERABLE + "\n")
            file.flush()
            control = parse_report(run_pip_audit(Path(file.name)))
        reports = {lock: parse_report(run_pip_audit(ROOT / lock)) for lock in LOCKS}
    except Unreachable as error:
        print(f"audit: NOTHING WAS AUDITED: the index's vulnerability data cannot be reached: {error}", file=sys.stderr)
        return 2
    return print_reports(control, reports)


def run_pip_audit(requirements: Path) -> str:
    """pip-audit's report, as JSON. Raises Unreachable."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--disable-pip", "--no-deps"]
    command += ["--format", "json", "--progress-spinner", "off"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Unreachable(f"no answer within {TIMEOUT_SECONDS} s") from None
    if not result.stdout.strip():
        raise Unreachable(result.stderr.strip().rpartition("\n")[2][:200])
    return result.stdout


def parse_report(output: str) -> Report:
    report = Report()
    for package in json.loads(output)["dependencies"]:
        if "skip_reason" in package:
            report.without_data.append(package["name"])
            continue
        report.audited += 1
        for vulnerability in package["vulns"]:
            fix_versions = ", ".join(vulnerability["fix_versions"])
            suffix = f", fixed in {fix_versions}" if fix_versions else ""
            report.vulnerable.append(f"{package['name']} {package['version']}: {vulnerability['id']}{suffix}")
    return report


def print_reports(control: Report, reports: dict[str, Report]) -> int:
    """Returns the exit status. `control`: the report on KNOWN_VULNERABLE."""
    for line in format_reports(reports):
        print(f"audit: {line}")
    if any(each.vulnerable for each in reports.values()):
        return 1
    if not control.vulnerable:
        print(
            f"audit: NOTHING WAS AUDITED: the index reports nothing even for {KNOWN_VULNERABLE}",
            file=sys.stderr,
        )
        return 2
    if any(each.without_data for each in reports.values()):
        return 2
    print("audit: no known vulnerability")
    return 0


def format_reports(reports: dict[str, Report]) -> Iterator[str]:
    for lock, each in reports.items():
        yield f"{lock}: {each.audited} of {each.audited + len(each.without_data)} audited"
        yield from (f"{lock}: VULNERABLE: {text}" for text in each.vulnerable)
        if each.without_data and each.audited:
            yield f"{lock}: NOT AUDITED, the index has no data on them: {', '.join(each.without_data)}"


if __name__ == "__main__":
    sys.exit(main())
