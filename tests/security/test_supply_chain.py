"""What the image is made of is told in full, and an audit that could not look says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environment import ROOT, inherited_environment
from tools import audit, sbom

LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
GOOD = {"name": "flask", "version": "3.1.0", "vulns": []}
BAD = {"name": "jinja2", "version": "2.10", "vulns": [{"id": "CVE-2019-10906", "fix_versions": ["2.10.1"]}]}
UNSEEN = {"name": "rich", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_is_pinned_and_hashed(lock: Path) -> None:
    wanted = [line for line in lock.read_text().splitlines() if line and not line.startswith(("#", " "))]
    assert len(wanted) > 3
    assert [line for line in wanted if "==" not in line or not line.endswith("\\")] == []


def test_a_bill_of_materials_lists_every_package_with_its_hashes_and_is_reproducible(tmp_path: Path) -> None:
    assert sbom.main(tmp_path) == 0
    (production, _) = sorted(tmp_path.iterdir())
    told = json.loads(production.read_text())
    assert told["bomFormat"] == "CycloneDX"
    assert told["metadata"]["component"]["name"] == "tokenkeeper"
    assert {each["purl"].partition("?")[0] for each in told["components"]} == {
        f"pkg:pypi/{pin}" for pin in sbom.pins(ROOT / "requirements" / "production.lock")
    }
    again = tmp_path / "again.json"
    sbom.write(ROOT / "requirements" / "production.lock", again)
    assert again.read_bytes() == production.read_bytes()


def test_a_bill_of_materials_without_a_hash_is_incomplete(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text("flask==3.1.0 \\\n    --hash=sha256:" + "0" * 64 + "\nrich==14.0.0 \\\n")
    sbom.write(lock, tmp_path / "bill.json")
    assert sbom.pins(lock) - sbom.components(tmp_path / "bill.json") == {"rich@14.0.0"}


def make_report(*packages: object) -> audit.Report:
    return audit.report(json.dumps({"dependencies": packages, "fixes": []}))


@pytest.mark.parametrize(
    ("proof", "lock", "status"),
    [
        ((BAD,), (GOOD,), 0),
        ((BAD,), (GOOD, BAD), 1),
        ((BAD,), (GOOD, UNSEEN), 2),
        ((GOOD,), (GOOD,), 2),
        ((UNSEEN,), (UNSEEN,), 2),
        ((UNSEEN,), (BAD,), 1),
    ],
)
def test_an_audit_passes_only_if_it_checked_every_package_and_finds_a_known_vulnerability(
    proof: tuple[object, ...], lock: tuple[object, ...], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.told(make_report(*proof), {"some.lock": make_report(*lock)}) == status
    said = "".join(capsys.readouterr())
    assert ("CVE-2019-10906" in said) == (status == 1)
    assert ("NOT" in said) == (status == 2)
    assert ("0 of 1 looked at" in said) == (lock == (UNSEEN,))


def test_an_audit_that_cannot_reach_the_index_says_so() -> None:
    ran = subprocess.run(
        [sys.executable, "tools/audit.py"],
        cwd=ROOT,
        env={**inherited_environment(), "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("audit: NOTHING WAS AUDITED: ")
    assert ran.stderr.count("\n") == 1
