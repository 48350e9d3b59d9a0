"""Writes a software bill of materials of the image, as CycloneDX JSON, from the lock files: `make sbom`, into sbom/."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
    """Here and not by `--validate`: to import the validator takes four seconds, which is nine tenths of a run."""
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    version = SchemaVersion.from_version(json.loads(text)["specVersion"])
    if error := JsonStrictValidator(version).validate_str(text):
        raise ValueError(f"CycloneDX's schema refuses the bill of materials: {error}")


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
