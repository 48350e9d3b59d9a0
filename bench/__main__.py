"""`make bench`: prints tables, writes the figures as JSON with a chart, and says which goals are met.

Exit status 0: all goals are met. 1: one was missed, or could not be measured. 2: wrong use. 130: stopped by a signal.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import psutil  # type: ignore[import-untyped]

from bench import documents, report
from bench.measure import MachineLoad
from bench.plan import FULL, QUICK, InvalidSize, Plan, make_growth_plan, parse_size
from bench.suite import Suite
from bench.testbed import BenchmarkError, Testbed, run_testbed
from sandbox.child_processes import ROOT, ProcessFailed
from sandbox.embedded import EmbeddedError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FIGURES_FILES = {"full": ROOT / "docs/performance.json", "growth": ROOT / "docs/growth.json"}
QUICK_FIGURES_FILE = ROOT / ".tokenkeeper/bench/performance.json"
QUICK_NOTE = "QUICK: few and short runs. A first impression, not for figures.\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every figure in short, in less than four minutes")
    parser.add_argument("--size", default="", help="cost and lateness alone, with so many connections")
    parser.add_argument("--out", type=Path, help="the JSON file for the figures")
    options = parser.parse_args(arguments)
    try:
        plan = _choose_plan(options.quick, options.size)
    except InvalidSize as error:
        say(f"bench: {error}")
        return 2
    figures = options.out or (
        QUICK_FIGURES_FILE if plan.is_quick else FIGURES_FILES["growth" if plan.is_growth else "full"]
    )
    for signum in STOP_SIGNALS:
        signal.signal(signum, _interrupt)
    try:
        return _run(plan, figures)
    except (BenchmarkError, ProcessFailed, EmbeddedError) as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("bench: stopped; all processes have ended, and nothing was written")
        return 130


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _choose_plan(is_quick: bool, size: str) -> Plan:
    """Raises InvalidSize."""
    if is_quick and size:
        raise InvalidSize("QUICK and SIZE exclude each other")
    if size:
        return make_growth_plan(parse_size(size))
    return QUICK if is_quick else FULL


def _run(plan: Plan, figures: Path) -> int:
    start, load = time.monotonic(), MachineLoad.read()
    with run_testbed() as testbed:
        results = Suite(testbed, plan, lambda text: say(f"{time.monotonic() - start:6.0f} s  {text}")).run()
        machine = _describe_machine(testbed, plan, load)
    report.write_json(results, machine, figures)
    documents.update(figures.parent)
    goals = report.choose_goals(machine)
    print(f"\n{report.format_table(results)}\n\n{report.format_goals(results, goals)}\n")
    print(f"{QUICK_NOTE if plan.is_quick else ''}{machine['told']} Figures: {figures}")
    return 0 if report.are_met(results, goals) else 1


def _describe_machine(testbed: Testbed, plan: Plan, load: MachineLoad) -> dict[str, Any]:
    """`load`: when the run began."""
    postgres = testbed.fetch_value("SHOW server_version")
    cores, memory_gb, python = os.cpu_count(), psutil.virtual_memory().total / 1e9, platform.python_version()
    now = MachineLoad.read()
    others, minutes = now.others_percent(load), (now.read_at - load.read_at) / 60
    kind = "quick run" if plan.is_quick else "run"
    text = (
        f"A {kind} of {minutes:.0f} minutes on {cores} cores with {memory_gb:.0f} GB, Python {python}, "
        f"PostgreSQL {postgres}; other programs used {others:.0f} % of the CPU meanwhile."
    )
    return {
        "quick": plan.is_quick,
        "growth": plan.is_growth,
        "cores": cores,
        "python": python,
        "postgres": postgres,
        "minutes": round(minutes, 1),
        "others_percent": round(others, 1),
        "told": text,
    }


def _interrupt(*_: object) -> NoReturn:
    """Only once: a second Ctrl-C must not interrupt the stop of the servers."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
