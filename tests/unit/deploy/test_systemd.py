"""The systemd units are valid, give no process more than it needs, and run the same commands as docker-compose.yml."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from shared.settings import DECLARED, REQUIRED

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "systemd"
UNITS = sorted(path.stem for path in FOLDER.glob("*.service"))
COMPOSE: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
MANUAL = (ROOT / "docs" / "systemd.md").read_text(encoding="utf-8")
#: Options that differ: addresses, and files that are elsewhere in the image.
OWN_OPTIONS = ("--bind=", "--address=", "--port=", "--config=")
#: Of `systemd-analyze security`, times ten: 0 is the safest, and 9.6 is a service without any of these settings.
MAX_EXPOSURE_TENTHS = 20
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="no systemd-analyze here: apt-get install systemd")


def read_unit(name: str) -> ConfigParser:
    unit = ConfigParser(interpolation=None, strict=False, delimiters="=", comment_prefixes="#")
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(FOLDER / f"{name}.service")
    return unit


def read_environment_files() -> dict[str, dict[str, str]]:
    """Of the manual: the settings of each unit."""
    blocks = re.findall(r"`/etc/tokenkeeper/([a-z-]+)\.env`.*?```ini\n(.*?)```", MANUAL, re.DOTALL)
    return {name: dict(line.split("=", 1) for line in block.splitlines()) for name, block in blocks}


@pytest.fixture
def installed_units(tmp_path: Path) -> list[str]:
    """Copies that name commands and folders which exist here."""
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    for path in (*tmp_path.glob("*.service"), *tmp_path.glob("*/*.conf")):
        text = path.read_text(encoding="utf-8").replace("/opt/tokenkeeper/bin", str(Path(sys.executable).parent))
        path.write_text(text.replace("WorkingDirectory=/opt/tokenkeeper", f"WorkingDirectory={ROOT}"), encoding="utf-8")
    return [str(tmp_path / f"{name}.service") for name in UNITS]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SYSTEMD_ANALYZE), *arguments], capture_output=True, text=True, timeout=120, check=False)


@needs_systemd
def test_systemd_accepts_every_unit(installed_units: list[str]) -> None:
    target = str(Path(installed_units[0]).parent / "tokenkeeper.target")
    result = analyze("verify", "--man=no", *installed_units, target)
    assert (result.returncode, result.stderr) == (0, "")


@needs_systemd
def test_no_unit_may_do_more_than_its_process_needs(installed_units: list[str]) -> None:
    result = analyze("security", "--offline=yes", f"--threshold={MAX_EXPOSURE_TENTHS}", *installed_units)
    if "unrecognized option" in result.stderr:
        pytest.skip("this systemd-analyze is older than 250, and cannot rate files")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_runs_the_command_of_the_container(unit: str) -> None:
    command = COMPOSE[unit.removeprefix("tokenkeeper-")]["command"]
    if unit == "tokenkeeper-migrate":
        lines = re.findall(
            r"^ExecStart=/opt/tokenkeeper/bin/(.*)$", (FOLDER / f"{unit}.service").read_text(), re.MULTILINE
        )
        assert " && ".join(lines) == command[-1]
        return
    words = read_unit(unit)["Service"]["ExecStart"].replace("\\\n", " ").split()
    assert words[0] == f"/opt/tokenkeeper/bin/{command[0]}"
    assert _without_own(words[1:]) == _without_own(command[1:])


def _without_own(words: list[str]) -> list[str]:
    return [word for word in words if not word.startswith(OWN_OPTIONS)]


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit != "tokenkeeper-migrate"])
def test_a_process_has_the_time_to_stop_and_the_memory_of_its_container(unit: str) -> None:
    service, section = COMPOSE[unit.removeprefix("tokenkeeper-")], read_unit(unit)["Service"]
    assert section["MemoryMax"].lower() == service["mem_limit"]
    assert section["TasksMax"] == str(service["pids_limit"])
    assert section["TimeoutStopSec"] == str(service.get("stop_grace_period", "15s")).removesuffix("s")
    assert section["RestartPreventExitStatus"] == ("4" if unit == "tokenkeeper-web" else "78")


def test_the_manual_has_settings_for_every_unit_that_are_complete_and_no_others() -> None:
    files = read_environment_files()
    assert sorted(files) == UNITS
    named = {name for values in files.values() for name in values}
    assert named <= {each.name for each in DECLARED.values()} | {"WEB_DATABASE_URL", "WORKER_DATABASE_URL"}
    assert set(REQUIRED) <= files["tokenkeeper-web"].keys()
    assert files["tokenkeeper-worker"].keys() <= files["tokenkeeper-web"].keys()
    assert "SECRET_KEY" not in files["tokenkeeper-worker"]
