"""What docker-compose.yml promises: two generations of compose take it, all is watched, nothing secret is in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deploy.init_secrets import FOLDERS, SECRETS

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = YAML(typ="safe").load(FILE)
SERVICES: dict[str, Any] = COMPOSE["services"]
ONE_SHOTS = {"init", "migrate"}
OURS = {name for name, service in SERVICES.items() if "build" in service}


def test_it_follows_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_holds_nothing_that_one_generation_of_compose_refuses() -> None:
    assert not {"version", "name"} & set(COMPOSE)
    assert not (ROOT / "Dockerfile").read_text().startswith("# syntax=")


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONE_SHOTS))
def test_every_service_that_stays_is_watched(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert SERVICES[name]["restart"] in {"unless-stopped", "on-failure"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_runs_with_little_power(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert service["logging"]["options"]["max-size"]
    assert name in OURS or service["user"] not in {"root", "0"}


def test_the_image_does_not_run_as_root() -> None:
    assert re.findall(r"(?m)^USER (.*)$", (ROOT / "Dockerfile").read_text()) == ["10001:10001"]


def test_every_service_has_its_own_login_to_the_database_or_none() -> None:
    urls = {
        name: {
            variable: Path(value).name
            for variable, value in (service.get("environment") or {}).items()
            if variable.endswith("DATABASE_URL_FILE")
        }
        for name, service in SERVICES.items()
    }
    owners = {"DATABASE_URL", "WEB_DATABASE_URL", "WORKER_DATABASE_URL"}
    assert {name: own for name, own in urls.items() if own} == {
        "migrate": {f"{name}_FILE": name for name in owners},
        "web": {"DATABASE_URL_FILE": "WEB_DATABASE_URL"},
        "worker": {"DATABASE_URL_FILE": "WORKER_DATABASE_URL"},
    }
    assert SERVICES["migrate"]["restart"] == "no", "who holds the owner's login does not stay"


def test_no_secret_stands_in_the_image_nor_in_what_it_is_built_with() -> None:
    said = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"(?m)^ARG (\w+)", said) == ["PYTHON_IMAGE", "REQUIREMENTS"]
    secret = re.compile(r"PASSWORD|SECRET|KEY|TOKEN|_URL")
    assigned = re.findall(r"(?m)\b([A-Z_]+)=", said)
    assert "PYTHONUNBUFFERED" in assigned, "else nothing was read"
    assert not [name for name in assigned if secret.search(name)]
    for service in SERVICES.values():
        assert service.get("build", ".") == ".", "no build arguments"
    # What goes to the engine: named folders of code alone.
    first, *allowed = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in {"", "#"}]
    assert first == "*"
    assert not [line for line in allowed if ".env" in line or ".tokenkeeper" in line]


def test_no_secret_stands_in_the_file_not_even_a_default() -> None:
    secret = re.compile(r"PASSWORD|SECRET|KEY|TOKEN|_URL$")
    for name, service in SERVICES.items():
        for variable, value in (service.get("environment") or {}).items():
            if variable.endswith("_FILE"):
                assert str(value).startswith("/run/tokenkeeper/"), f"{name}: {variable}"
            elif secret.search(variable):
                assert value == f"${{{variable}:-}}", f"{name}: {variable}"


def test_what_dot_env_holds_reaches_init_alone() -> None:
    private = {name for names in FOLDERS.values() for name in names}
    for name in set(SERVICES) - {"init"}:
        assert not private & set(SERVICES[name].get("environment") or {}), name


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_every_service_reads_its_own_secrets_and_no_others(name: str) -> None:
    mounts = [mount for mount in SERVICES[name]["volumes"] if mount.startswith("secrets-")]
    assert mounts == [f"secrets-{name}:/run/tokenkeeper:ro"]
    assert f"secrets-{name}:{SECRETS}/{name}" in SERVICES["init"]["volumes"]
    wanted = {
        Path(value).name
        for variable, value in (SERVICES[name].get("environment") or {}).items()
        if variable.endswith("_FILE")
    }
    assert wanted <= set(FOLDERS[name])


def test_only_people_s_doors_are_published_and_two_of_them_on_this_machine_alone() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "web": ["${WEB_PORT:-5000}:5000"],
        "flower": ["127.0.0.1:${FLOWER_PORT:-5555}:5555"],
        "simulator": ["127.0.0.1:${SIMULATOR_PORT:-8090}:8090"],
    }


def test_workers_and_beats_may_be_several() -> None:
    for name in ("worker", "beat"):
        assert not {"ports", "container_name", "hostname"} & set(SERVICES[name])
        assert not [mount for mount in SERVICES[name]["volumes"] if not mount.endswith(":ro")]


def test_nobody_waits_for_the_simulator() -> None:
    assert not [name for name, service in SERVICES.items() if "simulator" in service.get("depends_on", {})]


def test_a_worker_has_time_to_finish_what_is_in_flight() -> None:
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > 60
