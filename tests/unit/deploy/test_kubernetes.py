"""The manifests match Kubernetes's schema and docker-compose.yml, and give each pod only what it needs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from ruamel.yaml import YAML

from shared.settings import REQUIRED, Settings
from tests.support.json_schemas import run_check_jsonschema

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "kubernetes"
SCHEMA = Path(__file__).parent / "kubernetes-1.34.schema.json"
MANUAL = (ROOT / "docs" / "kubernetes.md").read_text()
COMPOSE: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
#: Not part of the kustomization.
OPTIONAL = {"secret.example.yaml", "worker-autoscaler.yaml"}
#: Settings that compose passes as files although they are not secret.
NOT_SECRET = {
    "HUBSPOT_CLIENT_ID",
    "HUBSPOT_REDIRECT_URI",
    "HUBSPOT_SCOPES",
    "HUBSPOT_OPTIONAL_SCOPES",
    "HUBSPOT_CONDITIONAL_SCOPES",
    "HUBSPOT_API_URL",
    "HUBSPOT_APP_URL",
    "HUBSPOT_API_VERSION",
}


def read_manifests() -> dict[str, dict[str, Any]]:
    """Documents by file, kind and name."""
    files = [path for path in sorted(FOLDER.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return {
        f"{path.name}: {document['kind']} {document['metadata']['name']}": document
        for path in files
        for document in YAML(typ="safe").load_all(path)
    }


MANIFESTS = read_manifests()
KUSTOMIZATION: dict[str, Any] = YAML(typ="safe").load(FOLDER / "kustomization.yaml")
SECRETS: dict[str, str] = MANIFESTS["secret.example.yaml: Secret tokenkeeper"]["stringData"]
CONFIG = dict(
    line.split("=", 1) for line in (FOLDER / "settings.env").read_text().splitlines() if not line.startswith("#")
)


def find_by_kind(*kinds: str) -> list[dict[str, Any]]:
    return [document for document in MANIFESTS.values() if document["kind"] in kinds]


#: Pod templates by component.
PODS: dict[str, dict[str, Any]] = {
    each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"]["template"]
    for each in find_by_kind("Deployment", "Job")
}


def list_containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def main_container(component: str) -> dict[str, Any]:
    container: dict[str, Any]
    (container,) = PODS[component]["spec"]["containers"]
    return container


def settings_from_files(container: Mapping[str, Any]) -> set[str]:
    """The names of settings that the container reads from files."""
    return {each["name"].removesuffix("_FILE") for each in container.get("env", [])}


def matches(labels: Mapping[str, str], selector: Mapping[str, Any]) -> bool:
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return set(selector.get("matchLabels", {}).items()) <= set(labels.items())


def find_schema_errors(documents: Mapping[str, Any], folder: Path) -> dict[str, list[str]]:
    """Messages by the name of the document, of those that have any."""
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    files = [str(folder / name) for name in documents]
    output = run_check_jsonschema("--output-format", "json", "--schemafile", str(SCHEMA), *files).stdout
    errors: dict[str, list[str]] = {}
    for error in json.loads(output)["errors"]:
        errors.setdefault(Path(error["filename"]).name, []).append(str(error))
    return errors


def read_manual_manifests() -> list[dict[str, Any]]:
    blocks = re.findall(r"(?ms)^ *```yaml\n(.*?)^ *```", MANUAL)
    return [YAML(typ="safe").load(block) for block in blocks]


def test_every_manifest_is_valid_by_the_schema_of_kubernetes_which_refuses_a_misspelled_field(tmp_path: Path) -> None:
    ingresses = [each for each in read_manual_manifests() if each["kind"] == "Ingress"]
    assert ingresses
    misspelled = json.loads(
        json.dumps(find_by_kind("Deployment")[0]).replace("readOnlyRootFilesystem", "readOnlyRootFileSystem")
    )
    documents = {f"{number}.json": each for number, each in enumerate([*MANIFESTS.values(), *ingresses])}
    errors = find_schema_errors({**documents, "misspelled.json": misspelled}, tmp_path)
    assert errors.keys() == {"misspelled.json"}, errors
    assert "readOnlyRootFileSystem" in str(errors)


@pytest.mark.parametrize("component", sorted(PODS))
def test_a_pod_runs_the_same_command_as_in_compose(component: str) -> None:
    assert main_container(component)["command"] == COMPOSE[component]["command"]


@pytest.mark.parametrize("component", sorted(PODS))
def test_a_pod_reads_the_secrets_that_compose_gives_it_from_files_and_no_others(component: str) -> None:
    environment = COMPOSE[component]["environment"]
    compose = {name.removesuffix("_FILE") for name in environment if name.endswith("_FILE")}
    assert settings_from_files(main_container(component)) == compose - NOT_SECRET
    files = {name: Path(value).name for name, value in environment.items() if name.endswith("_FILE")}
    mounted = {files[f"{name}_FILE"] for name in compose - NOT_SECRET}
    pod = PODS[component]["spec"]
    (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert {item["key"] for item in secret["items"]} == {item["path"] for item in secret["items"]} == mounted
    for container in list_containers(PODS[component]):
        for each in container["env"]:
            assert each["value"] == f"/run/tokenkeeper/{files[each['name']]}"
        assert {"name": "secrets", "mountPath": "/run/tokenkeeper", "readOnly": True} in container["volumeMounts"]


def test_the_example_secret_has_exactly_the_keys_that_pods_mount() -> None:
    assert set(SECRETS) == {name for component in PODS for name in settings_from_files(main_container(component))}
    commands = MANUAL.split("mkdir secrets")[1].split("```")[0]
    assert [name for name in SECRETS if not re.search(rf"\b{name}\b", commands)] == []


class RecordingEnvironment(dict[str, str]):
    """Records the names that are read."""

    names: set[str]

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def test_config_and_secret_are_known_settings_and_enough_to_start() -> None:
    secrets = {**SECRETS, "TOKEN_KEYS": Fernet.generate_key().decode(), "HUBSPOT_CLIENT_SECRET": "a,b"}
    environment = RecordingEnvironment({**CONFIG, **secrets})
    environment.names = set()
    Settings.from_env(environment, REQUIRED)
    literals = {
        literal.split("=")[0]
        for each in read_manual_manifests()
        for generator in each.get("configMapGenerator", [])
        for literal in generator["literals"]
    }
    assert literals
    names = {name.removesuffix("_FILE") for name in environment.names}  # the file of apps is a setting of its own
    assert set(CONFIG) | set(SECRETS) | literals <= names
    assert not set(CONFIG) & set(SECRETS)


@pytest.mark.parametrize("component", sorted(PODS))
def test_a_pod_has_few_privileges(component: str) -> None:
    pod = PODS[component]["spec"]
    user = re.findall(r"(?m)^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text())
    context = pod["securityContext"]
    assert [(str(context["runAsUser"]), str(context["runAsGroup"]))] == user
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    for container in list_containers(PODS[component]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["image"] == "tokenkeeper"
        assert container["resources"]["limits"]["memory"]
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}


def test_every_deployment_has_probes_that_its_container_answers() -> None:
    routes = set(re.findall(r'add_url_rule\("([^"]+)"', (ROOT / "web" / "app.py").read_text()))
    for component in ("web", "worker", "beat", "flower"):
        container = main_container(component)
        for probe in ("startupProbe", "livenessProbe"):
            check = container[probe]
            if "exec" in check:
                assert ["CMD", *check["exec"]["command"]] == COMPOSE[component]["healthcheck"]["test"]
            elif component == "web":
                assert check["httpGet"]["path"] in routes
            else:
                assert check["httpGet"]["path"] in str(COMPOSE[component]["healthcheck"]["test"])


def test_web_stays_in_its_service_while_postgres_and_redis_are_down() -> None:
    assert main_container("web")["readinessProbe"]["httpGet"]["path"] == "/healthz"


def test_a_pod_has_time_to_finish_its_calls_in_flight() -> None:
    defaults = Settings.from_env({}, needs=())
    assert PODS["worker"]["spec"]["terminationGracePeriodSeconds"] > defaults.lease_seconds
    seconds = int(main_container("web")["lifecycle"]["preStop"]["exec"]["command"][1])
    assert PODS["web"]["spec"]["terminationGracePeriodSeconds"] > 30 + seconds  # gunicorn's graceful_timeout


def test_services_budgets_and_the_autoscaler_select_existing_pods() -> None:
    deployments = {each["metadata"]["name"]: each for each in find_by_kind("Deployment")}
    for each in deployments.values():
        assert matches(each["spec"]["template"]["metadata"]["labels"], each["spec"]["selector"])
    for service in find_by_kind("Service"):
        (pod,) = [
            pod
            for pod in PODS.values()
            if matches(pod["metadata"]["labels"], {"matchLabels": service["spec"]["selector"]})
        ]
        named = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named
    for budget in find_by_kind("PodDisruptionBudget"):
        name = budget["metadata"]["name"]
        assert budget["spec"]["selector"] == deployments[name]["spec"]["selector"]
        assert deployments[name]["spec"]["replicas"] > budget["spec"]["maxUnavailable"]
    (scaler,) = find_by_kind("HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] in deployments


def list_ports(component: str, direction: str) -> set[int]:
    labels = PODS[component]["metadata"]["labels"]
    policies = [each["spec"] for each in find_by_kind("NetworkPolicy") if matches(labels, each["spec"]["podSelector"])]
    assert {kind for policy in policies for kind in policy["policyTypes"]} == {"Ingress", "Egress"}
    return {port["port"] for policy in policies for rule in policy.get(direction, []) for port in rule["ports"]}


@pytest.mark.parametrize("component", sorted(PODS))
def test_a_pod_can_connect_only_to_servers_whose_password_it_has(component: str) -> None:
    ports = {"DATABASE_URL": {5432}, "REDIS_URL": {6379}, "HUBSPOT_CLIENT_SECRET": {443}}
    needed = (ports.get(name, set()) for name in settings_from_files(main_container(component)))
    assert list_ports(component, "egress") == {53}.union(*needed)
    assert list_ports(component, "ingress") == ({5000} if component == "web" else set())


def test_the_kustomization_leaves_out_only_what_is_optional() -> None:
    assert set(KUSTOMIZATION["resources"]) | OPTIONAL | {"kustomization.yaml"} == {
        path.name for path in FOLDER.glob("*.yaml")
    }
    assert [image["name"] for image in KUSTOMIZATION["images"]] == ["tokenkeeper"]
    assert KUSTOMIZATION["configMapGenerator"] == [{"name": "tokenkeeper", "envs": ["settings.env"]}]


def build_kustomization(folder: Path) -> Iterator[dict[str, Any]]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not on PATH")
    command = [kubectl, "kustomize", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    yield from YAML(typ="safe").load_all(result.stdout)


def test_the_manuals_kustomization_builds(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "tokenkeeper" / "deploy" / "kubernetes")
    kustomization, ingress = read_manual_manifests()
    for name, document in (("kustomization.yaml", kustomization), ("ingress.yaml", ingress)):
        (tmp_path / name).write_text(json.dumps(document))
    documents = list(build_kustomization(tmp_path))
    (config,) = [each for each in documents if each["kind"] == "ConfigMap"]
    assert config["data"]["MAX_REFRESHES_PER_SECOND"] == "100"
    assert config["data"]["LOG_FORMAT"] == "json"
    workloads = [each for each in documents if each["kind"] in {"Deployment", "Job"}]
    assert {each["metadata"]["namespace"] for each in documents} == {"tokenkeeper"}
    for workload in workloads:
        for container in list_containers(workload["spec"]["template"]):
            assert container["image"] == "registry.your-company.example/tokenkeeper:0.2.0"
            for source in container.get("envFrom", []):
                assert source["configMapRef"]["name"] == config["metadata"]["name"]
