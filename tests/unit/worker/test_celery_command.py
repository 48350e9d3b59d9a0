import importlib.util
import subprocess
import sys
from types import ModuleType

import pytest

from tests.support.environment import ROOT
from worker.celery_command import is_celery, is_replaceable

HEADER = "import time: self"


def make_main(*, spec_name: str | None = None, file: str | None = None) -> ModuleType:
    main = ModuleType("__main__")
    if spec_name:
        main.__spec__ = importlib.util.spec_from_loader(spec_name, None)
    if file:
        main.__file__ = file
    return main


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


def test_a_program_that_imports_celery_is_not_replaced() -> None:
    assert is_celery(make_main(file="/usr/bin/celery"))
    assert is_celery(make_main(spec_name="celery.__main__", file="/lib/celery/__main__.py"))
    assert not is_celery(make_main(spec_name="pytest.__main__", file="/lib/celery"))
    assert not is_celery(make_main(file="/usr/bin/python-debugger"))
    assert not is_celery(make_main())


def test_the_command_goes_on_with_its_arguments_and_without_what_other_commands_need() -> None:
    """Python's own list of imports shows both processes, so that flags of the interpreter have gone on as well."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "celery", "-A", "worker.app", "beat", "--no-such-option"],
        cwd=ROOT,
        env={"REDIS_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    _, first, second = result.stderr.split(HEADER)
    assert result.returncode == 2
    assert "No such option" in second
    for module in ("flower.views", "tornado.web", "prompt_toolkit.shortcuts", "pygments.lexer"):
        assert f" {module}\n" in first
        assert f" {module}\n" not in second
