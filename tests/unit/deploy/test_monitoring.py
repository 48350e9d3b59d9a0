"""The rules and the dashboard speak of metrics that there are, are explained, and pass Prometheus's own checks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from ruamel.yaml import YAML

from shared.db.reports.connections import Overview
from shared.db.reports.refresh_stats import Life, Totals
from shared.domain.connection import Status
from shared.domain.provider import Provider
from shared.domain.refresh_counters import LATENESS_BOUNDS_SECONDS, LIFETIME_BOUNDS_SECONDS, OUTCOMES
from tests.support.builders import START
from web.monitoring.metrics import Snapshot, render_metrics

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "monitoring"
MANUAL = (ROOT / "docs" / "monitoring.md").read_text()
RULES: list[dict[str, Any]] = YAML(typ="safe").load(FOLDER / "alerts.yml")["groups"][0]["rules"]
RULE_TESTS: list[dict[str, Any]] = YAML(typ="safe").load(FOLDER / "alerts_test.yml")["tests"]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
GRAPHS = [panel for panel in PANELS if panel["type"] != "row"]
#: Of Prometheus's own making, or the name of a process that is scraped.
FOREIGN_LABELS = {"job", "instance", "le"}


def samples() -> list[Sample]:
    """What /metrics says of a house where there is one of everything."""
    overview = Overview(
        now=START,
        counts=dict.fromkeys(Status, 1),
        failing=1,
        due=1,
        soonest_due=START,
        soonest_expiry=START,
        provider=Provider(),
        swept_at=START,
        last_success_at=START,
        brake_since=None,
        held=0,
    )
    totals = Totals(dict.fromkeys(OUTCOMES, 1), dict.fromkeys(LATENESS_BOUNDS_SECONDS, 1), 1.0)
    reading = Snapshot(
        overview, totals, Life(dict.fromkeys(LIFETIME_BOUNDS_SECONDS, 1), 1.0, estimated=False), 0, 0, 2.0
    )
    text = render_metrics(reading, accept="").get_data(as_text=True)
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


SAMPLES = samples()


def dashboard_expressions() -> Iterator[str]:
    yield from (target["expr"] for panel in GRAPHS for target in panel["targets"])
    yield from (note["expr"] for note in DASHBOARD["annotations"]["list"])


EXPRESSIONS = [*dashboard_expressions(), *(rule["expr"] for rule in RULES)]


def selectors(expression: str) -> list[tuple[str, str]]:
    """Metric names, each with what stands in its braces."""
    return re.findall(r"\b(tokenkeeper_\w+)(?:\{([^}]*)\})?", expression)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_speaks_of_what_metrics_says(expression: str) -> None:
    for name, braces in selectors(expression):
        matching = [sample for sample in SAMPLES if sample.name == name]
        assert matching, f"/metrics has no {name}"
        for label, operator, value in re.findall(r'(\w+)\s*(=~|=)\s*"([^"]*)"', braces):
            if label in FOREIGN_LABELS:
                continue
            wanted = value.split("|") if operator == "=~" else [value]
            assert set(wanted) <= {sample.labels.get(label) for sample in matching}, f"{name}: {label}"


def families() -> set[str]:
    return {re.sub(r"_(bucket|count|sum)$", "", sample.name) for sample in SAMPLES}


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {re.sub(r"_bucket$", "", name) for text in dashboard_expressions() for name, _ in selectors(text)}
    # The same as the age, for those who would rather subtract themselves.
    assert families() - shown == {"tokenkeeper_last_sweep_timestamp_seconds"}


def test_the_manual_tells_of_every_metric_and_every_outcome() -> None:
    told = set(re.findall(r"(?m)^\| `(tokenkeeper_\w+)", MANUAL))
    assert told == families()
    table = MANUAL.split("| `outcome` |")[1].split("\n## ")[0]
    assert re.findall(r"(?m)^\| `(\w+)`", table) == list(OUTCOMES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_rule_says_how_bad_it_is_what_is_wrong_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    document, anchor = rule["annotations"]["runbook"].split("#")
    headings = re.findall(r"(?m)^#+ (.+)$", (ROOT / document).read_text())
    assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    section = MANUAL.split(f"### {rule['alert']}\n")[1]
    assert section.strip().lower().startswith(rule["labels"]["severity"])


def test_the_manual_explains_no_rule_that_is_gone() -> None:
    assert re.findall(r"(?m)^### (\w+)$", MANUAL) == [rule["alert"] for rule in RULES]


def test_every_rule_is_tested_where_it_fires_and_where_it_does_not() -> None:
    tried = [case for test in RULE_TESTS for case in test.get("alert_rule_test", [])]
    names = {rule["alert"] for rule in RULES}
    assert {case["alertname"] for case in tried if case["exp_alerts"]} == names
    assert {case["alertname"] for case in tried if not case["exp_alerts"]} == names


def test_the_scrape_config_names_the_job_that_the_rules_ask_for_and_holds_no_password() -> None:
    config = YAML(typ="safe").load(FOLDER / "prometheus.yml")
    job = config["scrape_configs"][0]
    assert f'job="{job["job_name"]}"' in next(rule["expr"] for rule in RULES if "absent" in rule["expr"])
    assert (job["metrics_path"], job["basic_auth"]["username"]) == ("/metrics", "operator")
    assert "password" not in job["basic_auth"]
    assert config["rule_files"] == ["alerts.yml"]


def test_the_dashboard_can_be_imported_anywhere() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    sources = {str(found) for found in re.findall(r'"uid": "([^"]*)"', json.dumps(PANELS))}
    assert sources == {"${datasource}"}
    used = set(re.findall(r"\$(\w+)", "".join(dashboard_expressions())))
    assert used - set(variables) == {"__rate_interval"}  # Grafana's own
    assert "id" not in DASHBOARD, "Grafana gives it one"


def test_panels_have_numbers_of_their_own_and_lie_beside_each_other() -> None:
    numbers = [panel["id"] for panel in PANELS]
    assert len(numbers) == len(set(numbers))
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        assert min(place["w"], place["h"]) > 0
    for one, other in combinations(PANELS, 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not (beside or below)


@pytest.mark.parametrize("panel", GRAPHS, ids=lambda panel: panel["title"])
def test_every_panel_says_what_it_shows_in_a_unit(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 20
    assert panel["type"] == "table" or panel["fieldConfig"]["defaults"]["unit"]
    references = [target["refId"] for target in panel["targets"]]
    assert len(references) == len(set(references))


def promtool(*arguments: str) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not on PATH; it comes with Prometheus")
    done = subprocess.run([tool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "check",
    [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml"), ("check", "config", "prometheus.yml")],
)
def test_prometheus_takes_the_files(check: tuple[str, ...]) -> None:
    promtool(*check)


def test_prometheus_understands_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m").replace("$job", "tokenkeeper")}
        for number, text in enumerate(dashboard_expressions())
    ]
    file = tmp_path / "dashboard.json"  # which is YAML too
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(file))
