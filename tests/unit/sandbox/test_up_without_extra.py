"""`tokenkeeper up` where the sandbox extra is not installed, or the sandbox itself, as in the production image."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.environment import ROOT, inherited_environment

RUN_UP_WITHOUT = (
    "import sys; sys.modules[{module!r}] = None; sys.argv = ['tokenkeeper', 'up']; import cli.main as m; m.main()"
)


def run_up_without(module: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN_UP_WITHOUT.format(module=module)],
        cwd=ROOT,
        env=inherited_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("module", ["honcho", "sandbox"])
def test_up_without_the_sandbox_says_in_one_line_what_to_install(module: str) -> None:
    run = run_up_without(module)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert "pip install 'tokenkeeper[sandbox]'" in run.stderr


def test_a_missing_module_that_the_extra_does_not_bring_is_not_reported_as_a_missing_extra() -> None:
    run = run_up_without("deploy")
    assert run.returncode == 1
    assert "ModuleNotFoundError" in run.stderr
    assert "pip install" not in run.stderr
