"""What `tokenkeeper up` says when its processes have ended."""

from __future__ import annotations

import signal

import pytest

from sandbox.respawn import EX_CONFIG
from sandbox.supervision import explain_end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_by_the_user_needs_no_explanation(number: signal.Signals) -> None:
    assert explain_end(128 + number) is None


def test_a_refused_start_is_told_from_a_killed_respawner() -> None:
    assert "refused to start" in str(explain_end(EX_CONFIG))
    killed = str(explain_end(-signal.SIGKILL))
    assert "refused" not in killed
    assert "`tokenkeeper up` again" in killed
