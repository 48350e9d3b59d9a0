"""`make bench`, or `python -m bench [--quick] [--out FOLDER]`: prints a table, writes its figures as JSON and SVG."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import psutil  # type: ignore[import-untyped]

from bench import report
from bench.suite import FULL, QUICK, Suite
from bench.testbed import BenchmarkError, Testbed, run_testbed
from sandbox.child_processes import ROOT, ProcessFailed
from sandbox.embedded import EmbeddedError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two and a half minutes: 10,000 connections, few runs")
    parser.add_argument("--out", type=Path, help="folder for the figures (docs; a quick run's: .tokenkeeper/bench)")
    options = parser.parse_args()
    folder = options.out or (ROOT / ".tokenkeeper" / "bench" if options.quick else ROOT / "docs")
    for signum in STOP_SIGNALS:
        signal.signal(signum, _interrupt)
    start, load = time.monotonic(), os.getloadavg()[0]
    try:
        with run_testbed() as testbed:
            plan = QUICK if options.quick else FULL
            results = Suite(testbed, plan, lambda text: say(f"{time.monotonic() - start:6.0f} s  {text}")).run()
            machine = _describe_machine(testbed, quick=options.quick, load=load)
    except (BenchmarkError, ProcessFailed, EmbeddedError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped; nothing was written")
        return 130
    figures, chart = report.write_files(results, machine, folder)
    print(f"\n{report.format_table(results)}\n\n{report.format_goals(results)}\n")
    if options.quick:
        print("QUICK: one size, few and short runs. Good for a first look, not for a figure.")
    print(f"{machine['told']}\nfigures in {figures}, drawn in {chart}")
    return 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _describe_machine(testbed: Testbed, *, quick: bool, load: float) -> dict[str, Any]:
    """`load`: the machine's load average when the run began."""
    postgres = testbed.fetch_value("SHOW server_version")
    cores, memory_gb = os.cpu_count(), psutil.virtual_memory().total / 1e9
    python = platform.python_version()
    text = f"{cores} cores, {memory_gb:.0f} GB, Python {python}, PostgreSQL {postgres}; load before: {load:.1f}"
    return {"quick": quick, "cores": cores, "python": python, "postgres": postgres, "load_before": load, "told": text}


def _interrupt(*_: object) -> NoReturn:
    """Only once: a second Ctrl-C must not interrupt the stop of the servers."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
