"""`tokenkeeper completion`: a script for each shell, and what bash completes with it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.support.command import TOKENKEEPER, Command
from tests.support.environment import inherited_environment

BASH = shutil.which("bash")


@pytest.fixture
def tokenkeeper() -> Command:
    return Command({**inherited_environment(), "PATH": f"{TOKENKEEPER.parent}:{inherited_environment()['PATH']}"})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell_asks_the_command(tokenkeeper: Command, shell: str) -> None:
    result = tokenkeeper("completion", shell)
    assert (result.status, result.err) == (0, "")
    assert f"_TOKENKEEPER_COMPLETE={shell}_complete" in result.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tokenkeeper re", ["refresh", "resume", "revocations"]),
        ("tokenkeeper connections --st", ["--status"]),
        ("tokenkeeper connections --status s", ["suspect"]),
        ("tokenkeeper keys ", ["lost", "new", "rotate"]),
        ("tokenkeeper --he", ["--help"]),
    ],
)
@pytest.mark.skipif(BASH is None, reason="there is no bash here")
def test_bash_completes_commands_options_and_choices(tokenkeeper: Command, words: str, expected: list[str]) -> None:
    script = """
eval "$(tokenkeeper completion bash)"
COMP_WORDS=($1 ${2+"$2"}); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_tokenkeeper_completion tokenkeeper
printf '%s\\n' "${COMPREPLY[@]}"
"""
    typed = [words, ""] if words.endswith(" ") else [words]
    result = subprocess.run(
        [str(BASH), "-c", script, "bash", *typed],
        env=tokenkeeper.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stderr == ""
    assert sorted(result.stdout.split()) == expected
