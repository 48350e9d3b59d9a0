"""`make bench`, or `python -m bench [--quick] [--out FOLDER]`: prints a table, writes its figures as JSON and SVG."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import psutil  # type: ignore[import-untyped]

from bench import report
from bench.processes import ROOT, Failed
from bench.suite import FULL, QUICK, Suite
from bench.world import World, world
from sandbox.embedded import EmbeddedError

ENDS = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    options = _options()
    plan = QUICK if options.quick else FULL
    folder = Path(tempfile.mkdtemp(prefix="tokenkeeper-bench-"))
    folder.chmod(0o711)  # PostgreSQL has an account of its own where we are root
    for signum in ENDS:
        signal.signal(signum, _told_to_go)
    begun, load = time.monotonic(), os.getloadavg()[0]
    try:
        with world(folder) as there:
            book = Suite(there, plan, lambda words: say(f"{time.monotonic() - begun:6.0f} s  {words}")).run()
            machine = _machine(there, quick=options.quick, load=load)
    except (Failed, EmbeddedError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped; nothing was written")
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    figures, chart = report.write(book, machine, options.out or _place(quick=options.quick))
    print(f"\n{report.table(book)}\n\n{report.goals(book)}\n")
    if options.quick:
        print("QUICK: one size, few and short runs. Good for a first look, not for a figure.")
    print(f"{machine['told']}\nfigures in {figures}, drawn in {chart}")
    return 0


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes: 10,000 connections, few runs")
    parser.add_argument("--out", type=Path, help="folder for the figures (docs; a quick run's: .tokenkeeper/bench)")
    return parser.parse_args()


def _place(*, quick: bool) -> Path:
    return ROOT / ".tokenkeeper" / "bench" if quick else ROOT / "docs"


def _machine(there: World, *, quick: bool, load: float) -> dict[str, Any]:
    """What the figures hold for. `load`: what others did on the machine when the run began."""
    postgres = there.value("SHOW server_version")
    cores, memory = os.cpu_count(), psutil.virtual_memory().total / 1e9
    python = platform.python_version()
    told = f"{cores} cores, {memory:.0f} GB, Python {python}, PostgreSQL {postgres}; load before: {load:.1f}"
    return {"quick": quick, "cores": cores, "python": python, "postgres": postgres, "load_before": load, "told": told}


def _told_to_go(*_: object) -> NoReturn:
    """Once: no second Ctrl-C comes between the servers and their end."""
    for signum in ENDS:
        signal.signal(signum, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
