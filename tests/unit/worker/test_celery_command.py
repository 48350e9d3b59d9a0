import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.child_processes import installed_command
from tests.support.environment import ROOT
from worker.celery_command import find_interpreter_options, is_replaceable

HEADER = "import time: self"


@pytest.mark.parametrize(
    "command_line",
    [
        "-A worker.app worker -c 2 -l info",
        "--app=worker.app beat --pidfile=",
        "-q --app worker.app worker --detach --pidfile=/run/worker.pid",
    ],
)
def test_worker_and_beat_of_this_product_are_replaced(command_line: str) -> None:
    assert is_replaceable(command_line.split())


@pytest.mark.parametrize(
    "command_line",
    [
        "-A worker.app flower --port=5555",
        "-A worker.app inspect ping -d worker@host",
        "-A other.app worker",
        "-A worker.app --workdir=worker worker",
        "multi start worker -A worker.app",
        "--help",
    ],
)
def test_other_commands_of_celery_are_not_replaced(command_line: str) -> None:
    assert not is_replaceable(command_line.split())


@pytest.mark.parametrize(
    ("command_line", "options"),
    [
        ("python /usr/bin/celery -A worker.app worker", []),
        ("python -m celery -A worker.app worker", []),
        ("python -sE /usr/bin/celery -A worker.app worker", ["-sE"]),
        ("python -X dev -W error -OPu -m celery -A worker.app worker", ["-X", "dev", "-W", "error", "-OPu"]),
        ("python -m coverage run -m celery -A worker.app worker", None),
        ("python /usr/bin/memray run -m celery -A worker.app worker", None),
        ("python -c code celery -A worker.app worker", None),
        ("python /usr/bin/pytest -A worker.app worker", None),
        ("python /usr/bin/celery -A worker.app flower", None),
        ("python", None),
    ],
)
def test_only_celery_itself_is_replaced_with_the_options_of_python(
    command_line: str, options: list[str] | None
) -> None:
    assert find_interpreter_options(command_line.split(), ["celery", "-A", "worker.app", "worker"]) == options


#: An option that the command refuses: a command that goes that far has imported all that it needs.
BEAT = ("-A", "worker.app", "beat", "--no-such-option")


def run_python(folder: Path, *arguments: str) -> str:
    """What a command that ends with BEAT writes to stderr."""
    result = subprocess.run(
        [sys.executable, *arguments, *BEAT],
        cwd=folder,
        env={"REDIS_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "No such option" in result.stderr
    assert result.returncode == 2
    return result.stderr


def test_the_command_goes_on_with_its_arguments_and_without_what_other_commands_need(tmp_path: Path) -> None:
    """Python's own list of imports shows both processes, so that flags of the interpreter have gone on as well.

    A file in the current folder takes the place of no library: the script `celery` does not look there for one.
    """
    (tmp_path / "celery.py").write_text("raise SystemExit('this file has been imported')")
    _, first, second = run_python(tmp_path, "-X", "importtime", installed_command("celery")).split(HEADER)
    for module in ("flower.views", "tornado.web", "prompt_toolkit.shortcuts", "pygments.lexer"):
        assert f" {module}\n" in first
        assert f" {module}\n" not in second


def test_a_program_that_runs_celery_is_not_replaced() -> None:
    """As a profiler, which writes its results when Celery has ended."""
    code = (
        "import atexit, runpy, sys; atexit.register(sys.stderr.write, 'the program has ended');"
        "runpy.run_module('celery', run_name='__main__', alter_sys=True)"
    )
    assert "the program has ended" in run_python(ROOT, "-c", code)
