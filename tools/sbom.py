"""Writes a software bill of materials of the image, as CycloneDX JSON, from the lock files: `make sbom`, into sbom/."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rfc3986_validator import validate_rfc3986  # type: ignore[import-untyped]

from shared.optional_imports import hide_optional
from tools.lock import PIN

ROOT = Path(__file__).resolve().parent.parent
#: The lock files that `docker build` can install; for the second see docs/tracing.md.
VARIANTS = ("production", "tracing")


def main(folder: Path = ROOT / "sbom") -> int:
    folder.mkdir(exist_ok=True)
    for variant in VARIANTS:
        lock = ROOT / "requirements" / f"{variant}.lock"
        sbom = folder / f"tokenkeeper-{variant}.cdx.json"
        write_sbom(lock, sbom)
        if missing := read_pins(lock) - read_hashed_components(sbom):
            print(f"sbom: {sbom.name} lacks {', '.join(sorted(missing))}", file=sys.stderr)
            return 1
        print(f"sbom: {sbom}: {len(read_pins(lock))} packages, each with its hashes")
    return 0


def write_sbom(lock: Path, sbom: Path) -> None:
    """The same lock file gives the same bytes. ValueError, and nothing written, where CycloneDX's schema refuses it."""
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", str(lock), "--no-validate"]
    command += ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application", "--output-reproducible"]
    made = subprocess.run([*command, "--output-format", "JSON"], check=True, stdout=subprocess.PIPE, text=True)
    validate_sbom(made.stdout)
    sbom.write_text(made.stdout, encoding="utf-8")


def validate_sbom(text: str) -> None:
    """Here and not by `--validate`, which checks each address by a grammar of IRIs in Python: nine tenths of a run."""
    with hide_optional("rfc3987_syntax"):  # it compiles its grammar while it is imported
        from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415
    from jsonschema.validators import Draft7Validator  # type: ignore[import-untyped]  # noqa: PLC0415

    Draft7Validator.FORMAT_CHECKER.checks("iri-reference", raises=ValueError)(is_iri_reference)
    version = SchemaVersion.from_version(json.loads(text)["specVersion"])
    if error := JsonStrictValidator(version).validate_str(text):
        raise ValueError(f"CycloneDX's schema refuses the bill of materials: {error}")


def is_iri_reference(value: object) -> bool:
    """Every URI reference is one, and a regular expression recognises those."""
    if not isinstance(value, str) or validate_rfc3986(value, rule="URI_reference"):
        return True
    from rfc3987_syntax import is_valid_syntax  # type: ignore[import-untyped]  # noqa: PLC0415  seconds of CPU time

    return bool(is_valid_syntax("iri_reference", value))


def read_pins(lock: Path) -> set[str]:
    return {f"{m[1]}@{m[2]}" for line in lock.read_text().splitlines() if (m := PIN.match(line))}


def read_hashed_components(sbom: Path) -> set[str]:
    """The components that have a hash, as name@version."""
    return {
        f"{each['name']}@{each['version']}"
        for each in json.loads(sbom.read_text())["components"]
        if any(reference.get("hashes") for reference in each.get("externalReferences", []))
    }


if __name__ == "__main__":
    sys.exit(main())
