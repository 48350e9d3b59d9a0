"""docker-compose.yml works with both generations of compose, checks every service's health and holds no secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deploy.init_secrets import SECRETS_FOLDER, SERVICE_FILES

ROOT = Path(__file__).parents[3]
FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = YAML(typ="safe").load(FILE)
SERVICES: dict[str, Any] = COMPOSE["services"]
ONE_SHOTS = {"init", "migrate"}
BUILT = {name for name, service in SERVICES.items() if "build" in service}


def test_the_compose_file_has_nothing_that_one_generation_of_compose_refuses() -> None:
    assert not {"version", "name"} & set(COMPOSE)
    assert not (ROOT / "Dockerfile").read_text().startswith("# syntax=")


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONE_SHOTS))
def test_every_service_that_keeps_running_has_a_health_check_and_a_restart_policy(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert SERVICES[name]["restart"] in {"unless-stopped", "on-failure"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_runs_with_few_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert service["logging"]["options"]["max-size"]
    assert name in BUILT or service["user"] not in {"root", "0"}


def test_every_image_of_another_project_can_be_pinned() -> None:
    """By a variable of .env; its default is a tag."""
    for service in SERVICES.values():
        if "build" in service:
            assert service["build"]["args"] == {"PYTHON_IMAGE": "${PYTHON_IMAGE:-python:3.13-slim}"}
        else:
            assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[a-z/]+:\d+\}", service["image"])
    assert "ARG PYTHON_IMAGE=python:3.13-slim" in (ROOT / "Dockerfile").read_text()


def test_the_image_does_not_run_as_root() -> None:
    assert re.findall(r"(?m)^USER (.*)$", (ROOT / "Dockerfile").read_text()) == ["10001:10001"]


def test_only_the_simulators_image_contains_a_part_of_the_sandbox() -> None:
    stages = re.split(r"(?m)^FROM ", (ROOT / "Dockerfile").read_text())[1:]
    with_sandbox = [re.search(r" AS (\w+)", stage)[1] for stage in stages if "sandbox/" in stage]  # type: ignore[index]
    assert with_sandbox == ["simulator"]
    assert stages[-1].strip() == "runtime AS production", "`docker build .` makes the last stage"
    targets = {name: service["build"]["target"] for name, service in SERVICES.items() if "build" in service}
    assert targets.pop("simulator") == "simulator"
    assert set(targets.values()) == {"production"}


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
    assert SERVICES["migrate"]["restart"] == "no", "the service with the owner's login must not keep running"


def test_neither_the_image_nor_its_build_context_contains_a_secret() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"(?m)^ARG (\w+)", dockerfile) == ["PYTHON_IMAGE", "REQUIREMENTS"]
    secret = re.compile(r"PASSWORD|SECRET|KEY|TOKEN|_URL")
    assigned = re.findall(r"(?m)\b([A-Z_]+)=", dockerfile)
    assert "PYTHONUNBUFFERED" in assigned, "the pattern matches no assignment"
    assert not [name for name in assigned if secret.search(name)]
    for service in SERVICES.values():
        assert set(service.get("build", {}).get("args", {})) <= {"PYTHON_IMAGE"}, "no build argument with a secret"
    # only named folders of code are sent to the engine
    first, *allowed = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in {"", "#"}]
    assert first == "*"
    assert not [line for line in allowed if ".env" in line or ".tokenkeeper" in line]


def test_the_compose_file_contains_no_secret_and_no_default_for_one() -> None:
    secret = re.compile(r"PASSWORD|SECRET|KEY|TOKEN|_URL$")
    for name, service in SERVICES.items():
        for variable, value in (service.get("environment") or {}).items():
            if name == "init" and variable == "HUBSPOT_APPS_FILE":
                assert f"${{HUBSPOT_APPS_FILE:-/dev/null}}:{value}:ro" in service["volumes"]
            elif variable.endswith("_FILE"):
                assert str(value).startswith("/run/tokenkeeper/"), f"{name}: {variable}"
            elif secret.search(variable):
                assert value == f"${{{variable}:-}}", f"{name}: {variable}"


def test_secrets_in_dot_env_are_passed_to_init_alone() -> None:
    private = {name for names in SERVICE_FILES.values() for name in names}
    for name in set(SERVICES) - {"init"}:
        assert not private & set(SERVICES[name].get("environment") or {}), name


@pytest.mark.parametrize("name", sorted(SERVICE_FILES))
def test_every_service_reads_its_own_secrets_and_no_others(name: str) -> None:
    mounts = [mount for mount in SERVICES[name]["volumes"] if mount.startswith("secrets-")]
    assert mounts == [f"secrets-{name}:/run/tokenkeeper:ro"]
    assert f"secrets-{name}:{SECRETS_FOLDER}/{name}" in SERVICES["init"]["volumes"]
    wanted = {
        Path(value).name
        for variable, value in (SERVICES[name].get("environment") or {}).items()
        if variable.endswith("_FILE")
    }
    assert wanted <= set(SERVICE_FILES[name])


def test_only_web_flower_and_simulator_publish_a_port_and_the_last_two_on_loopback_alone() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "web": ["${WEB_PORT:-5000}:5000"],
        "flower": ["127.0.0.1:${FLOWER_PORT:-5555}:5555"],
        "simulator": ["127.0.0.1:${SIMULATOR_PORT:-8090}:8090"],
    }


def test_worker_and_beat_can_be_scaled() -> None:
    for name in ("worker", "beat"):
        assert not {"ports", "container_name", "hostname"} & set(SERVICES[name])
        assert not [mount for mount in SERVICES[name]["volumes"] if not mount.endswith(":ro")]


def test_no_service_depends_on_the_simulator() -> None:
    assert not [name for name, service in SERVICES.items() if "simulator" in service.get("depends_on", {})]


def test_a_worker_has_time_to_finish_its_calls_in_flight() -> None:
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > 60


#: Threads in use with default settings, measured: they count as processes.
MOST_THREADS = {"web": 2 * (8 + 4 + 6 + 10), "worker": 2 * 50}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_service_can_take_all_memory_or_processes_of_the_machine(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"] >= 2 * MOST_THREADS.get(name, 8)
