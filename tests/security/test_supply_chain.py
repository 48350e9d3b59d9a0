"""The bills of materials are complete, and an audit that could not check every package says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environment import ROOT, inherited_environment
from tools import audit, sbom

LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
HARMLESS = {"name": "flask", "version": "3.1.0", "vulns": []}
VULNERABLE = {"name": "jinja2", "version": "2.10", "vulns": [{"id": "CVE-2019-10906", "fix_versions": ["2.10.1"]}]}
WITHOUT_DATA = {"name": "rich", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_is_pinned_and_hashed(lock: Path) -> None:
    requirements = [line for line in lock.read_text().splitlines() if line and not line.startswith(("#", " "))]
    assert len(requirements) > 3
    assert [line for line in requirements if "==" not in line or not line.endswith("\\")] == []


def test_a_bill_of_materials_lists_every_package_with_its_hashes(tmp_path: Path) -> None:
    assert sbom.main(tmp_path) == 0
    (production, _) = sorted(tmp_path.iterdir())
    bill = json.loads(production.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "tokenkeeper"
    assert {each["purl"].partition("?")[0] for each in bill["components"]} == {
        f"pkg:pypi/{pin}" for pin in sbom.read_pins(ROOT / "requirements" / "production.lock")
    }


def test_a_bill_of_materials_is_reproducible_and_incomplete_without_a_hash(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text("flask==3.1.0 \\\n    --hash=sha256:" + "0" * 64 + "\nrich==14.0.0 \\\n")
    sbom.write_sbom(lock, tmp_path / "bill.json")
    sbom.write_sbom(lock, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "bill.json").read_bytes()
    assert sbom.read_pins(lock) - sbom.read_hashed_components(tmp_path / "bill.json") == {"rich@14.0.0"}


def test_a_bill_of_materials_that_the_schema_refuses_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"schema refuses"):
        sbom.validate_sbom('{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": "one"}')


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("https://example/licence/#x", True),
        ("relative/\N{LATIN SMALL LETTER E WITH ACUTE}", True),
        ("", True),
        ("https://example/a space", False),
        ("https://[example", False),
        ("%zz", False),
        (7, True),  # of another type: the schema's other rules refuse that
    ],
)
def test_an_address_in_a_bill_of_materials_is_checked_as_an_iri(value: object, is_one: bool) -> None:
    assert sbom.is_iri_reference(value) is is_one


def test_a_bill_of_materials_with_a_malformed_address_is_refused() -> None:
    component = {"type": "library", "name": "flask", "externalReferences": [{"type": "website", "url": "a b"}]}
    bill = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": [component]}
    with pytest.raises(ValueError, match=r"schema refuses .* 'a b' is not valid"):
        sbom.validate_sbom(json.dumps(bill))


def make_report(*packages: object) -> audit.Report:
    return audit.parse_report(json.dumps({"dependencies": packages, "fixes": []}))


@pytest.mark.parametrize(
    ("control", "lock", "status"),
    [
        ((VULNERABLE,), (HARMLESS,), 0),
        ((VULNERABLE,), (HARMLESS, VULNERABLE), 1),
        ((VULNERABLE,), (HARMLESS, WITHOUT_DATA), 2),
        ((HARMLESS,), (HARMLESS,), 2),
        ((WITHOUT_DATA,), (WITHOUT_DATA,), 2),
        ((WITHOUT_DATA,), (VULNERABLE,), 1),
    ],
)
def test_an_audit_passes_only_if_it_checked_every_package_and_finds_a_known_vulnerability(
    control: tuple[object, ...], lock: tuple[object, ...], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.print_reports(make_report(*control), {"some.lock": make_report(*lock)}) == status
    output = "".join(capsys.readouterr())
    assert ("CVE-2019-10906" in output) == (status == 1)
    assert ("NOT" in output) == (status == 2)
    assert ("0 of 1 audited" in output) == (lock == (WITHOUT_DATA,))


def test_an_audit_that_cannot_reach_the_index_says_so() -> None:
    result = subprocess.run(
        [sys.executable, "tools/audit.py"],
        cwd=ROOT,
        env={**inherited_environment(), "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("audit: NOTHING WAS AUDITED: ")
    assert result.stderr.count("\n") == 1
