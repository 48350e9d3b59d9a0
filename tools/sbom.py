"""Writes what the image is made of, as CycloneDX JSON, from the lock files: `make sbom`, into sbom/."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tools.lock import PIN

ROOT = Path(__file__).resolve().parent.parent
#: What `docker build` can install: docs/tracing.md says when the second.
VARIANTS = ("production", "tracing")


def main(folder: Path = ROOT / "sbom") -> int:
    folder.mkdir(exist_ok=True)
    for variant in VARIANTS:
        lock = ROOT / "requirements" / f"{variant}.lock"
        written = folder / f"tokenkeeper-{variant}.cdx.json"
        write(lock, written)
        if missing := pins(lock) - components(written):
            print(f"sbom: {written.name} lacks {', '.join(sorted(missing))}", file=sys.stderr)
            return 1
        print(f"sbom: {written}: {len(pins(lock))} packages, each with its hashes")
    return 0


def write(lock: Path, written: Path) -> None:
    """The same for the same lock, to the byte; valid by CycloneDX's own schema, else it is not written."""
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", str(lock), "--validate"]
    command += ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application", "--output-reproducible"]
    subprocess.run([*command, "--output-format", "JSON", "--output-file", str(written)], check=True)


def pins(lock: Path) -> set[str]:
    return {f"{m[1]}@{m[2]}" for line in lock.read_text().splitlines() if (m := PIN.match(line))}


def components(written: Path) -> set[str]:
    """Those that have a hash."""
    return {
        f"{each['name']}@{each['version']}"
        for each in json.loads(written.read_text())["components"]
        if any(where.get("hashes") for where in each.get("externalReferences", []))
    }


if __name__ == "__main__":
    sys.exit(main())
