"""`tokenkeeper up` where the sandbox extra is not installed, as in the production image."""

from __future__ import annotations

import subprocess
import sys

from tests.support.environment import ROOT, inherited_environment

WITHOUT_HONCHO = (
    "import sys; sys.modules['honcho'] = None; sys.argv = ['tokenkeeper', 'up']; import cli.main as m; m.main()"
)


def test_without_the_extra_it_says_in_one_line_what_to_install() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_HONCHO],
        cwd=ROOT,
        env=inherited_environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert "pip install 'tokenkeeper[sandbox]'" in run.stderr
