"""Alert rules and the dashboard use existing metrics, are documented, and pass Prometheus's own checks."""

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

from shared.db.reports.history_lines import DeliveryReport
from shared.db.reports.journals import JournalReport
from shared.db.reports.oldest_snapshot import OldestSnapshot
from shared.db.reports.overview import AppState, Overview
from shared.db.reports.refresh_stats import TokenLifetimes, Totals
from shared.db.reports.scopes import ScopeCounts
from shared.domain.connection import Status
from shared.domain.identity import DEFAULT_APP
from shared.domain.journal import JournalState
from shared.domain.provider import Provider
from shared.domain.refresh_counters import LATENESS_BOUNDS_SECONDS, LIFETIME_BOUNDS_SECONDS, OUTCOMES
from tests.support.builders import START
from web.monitoring.metric_families import Snapshot
from web.monitoring.metrics import render_metrics

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "monitoring"
MANUAL = (ROOT / "docs" / "monitoring.md").read_text()
RULES: list[dict[str, Any]] = YAML(typ="safe").load(FOLDER / "alerts.yml")["groups"][0]["rules"]
RULE_TESTS: list[dict[str, Any]] = YAML(typ="safe").load(FOLDER / "alerts_test.yml")["tests"]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
GRAPHS = [panel for panel in PANELS if panel["type"] != "row"]
#: Added by Prometheus.
FOREIGN_LABELS = {"job", "instance", "le"}


def render_samples() -> list[Sample]:
    """The samples of /metrics where there is one of everything."""
    state = AppState(
        app=DEFAULT_APP,
        counts=dict.fromkeys(Status, 1),
        failing=1,
        due=1,
        soonest_due=START,
        soonest_expiry=START,
        provider=Provider(),
        swept_at=START,
        swept_without_beat_since=None,
        last_success_at=START,
        brake_since=None,
        held=0,
    )
    overview = Overview(START, (state,))
    totals = Totals(dict.fromkeys(OUTCOMES, 1), dict.fromkeys(LATENESS_BOUNDS_SECONDS, 1), 1.0)
    lifetimes = TokenLifetimes(dict.fromkeys(LIFETIME_BOUNDS_SECONDS, 1), 1.0, is_estimated=False)
    reading = Snapshot(
        overview,
        {DEFAULT_APP: totals},
        lifetimes,
        stale=0,
        alerts_waiting=0,
        oldest_snapshot=OldestSnapshot(0.0, {}, 0.0),
        journals=[JournalReport("default", JournalState.READING, None, since=START, read_at=START, now=START)],
        delivery=DeliveryReport(True, 0.0, 0, None, None, 1, 0, None, START),
        scope_counts=[ScopeCounts("default", 1, {}, START)],
        app_names=[DEFAULT_APP],
        sweep_seconds=2.0,
    )
    text = render_metrics(reading, accept="").get_data(as_text=True)
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


SAMPLES = render_samples()


def list_dashboard_expressions() -> Iterator[str]:
    yield from (target["expr"] for panel in GRAPHS for target in panel["targets"])
    yield from (note["expr"] for note in DASHBOARD["annotations"]["list"])


EXPRESSIONS = [*list_dashboard_expressions(), *(rule["expr"] for rule in RULES)]


def find_selectors(expression: str) -> list[tuple[str, str]]:
    """Metric names, each with the text in its braces."""
    return re.findall(r"\b(tokenkeeper_\w+)(?:\{([^}]*)\})?", expression)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_uses_existing_metrics_and_labels(expression: str) -> None:
    for name, braces in find_selectors(expression):
        matching = [sample for sample in SAMPLES if sample.name == name]
        assert matching, f"/metrics has no {name}"
        for label, operator, value in re.findall(r'(\w+)\s*(=~|=)\s*"([^"]*)"', braces):
            if label in FOREIGN_LABELS:
                continue
            values = value.split("|") if operator == "=~" else [value]
            assert set(values) <= {sample.labels.get(label) for sample in matching}, f"{name}: {label}"


def metric_names() -> set[str]:
    return {re.sub(r"_(bucket|count|sum)$", "", sample.name) for sample in SAMPLES}


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {re.sub(r"_bucket$", "", name) for text in list_dashboard_expressions() for name, _ in find_selectors(text)}
    # the same information as the age
    assert metric_names() - shown == {"tokenkeeper_last_sweep_timestamp_seconds"}


def test_the_manual_documents_every_metric_and_every_outcome() -> None:
    documented = set(re.findall(r"(?m)^\| `(tokenkeeper_\w+)", MANUAL))
    assert documented == metric_names()
    table = MANUAL.split("| `outcome` |")[1].split("\n## ")[0]
    assert re.findall(r"(?m)^\| `(\w+)`", table) == list(OUTCOMES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_rule_has_a_severity_a_description_and_a_section_in_the_manual(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    document, anchor = rule["annotations"]["runbook"].split("#")
    headings = re.findall(r"(?m)^#+ (.+)$", (ROOT / document).read_text())
    assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    section = MANUAL.split(f"### {rule['alert']}\n")[1]
    assert section.strip().lower().startswith(rule["labels"]["severity"])


def test_the_manual_documents_exactly_the_existing_rules() -> None:
    assert re.findall(r"(?m)^### (\w+)$", MANUAL) == [rule["alert"] for rule in RULES]


def test_every_rule_is_tested_where_it_fires_and_where_it_does_not() -> None:
    cases = [case for test in RULE_TESTS for case in test.get("alert_rule_test", [])]
    names = {rule["alert"] for rule in RULES}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


def test_the_scrape_config_has_the_job_name_of_the_rules_and_no_password() -> None:
    config = YAML(typ="safe").load(FOLDER / "prometheus.yml")
    job = config["scrape_configs"][0]
    assert f'job="{job["job_name"]}"' in next(rule["expr"] for rule in RULES if "absent" in rule["expr"])
    assert (job["metrics_path"], job["basic_auth"]["username"]) == ("/metrics", "metrics")
    assert "password" not in job["basic_auth"]
    assert config["rule_files"] == ["alerts.yml"]


def test_the_dashboard_depends_on_no_particular_grafana() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    sources = {str(found) for found in re.findall(r'"uid": "([^"]*)"', json.dumps(PANELS))}
    assert sources == {"${datasource}"}
    used = set(re.findall(r"\$(\w+)", "".join(list_dashboard_expressions())))
    assert used - set(variables) == {"__rate_interval"}  # Grafana's own
    assert "id" not in DASHBOARD, "Grafana gives it one"


def test_panels_have_different_ids_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(ids) == len(set(ids))
    for panel in PANELS:
        position = panel["gridPos"]
        assert position["x"] >= 0
        assert position["x"] + position["w"] <= 24
        assert min(position["w"], position["h"]) > 0
    for one, other in combinations(PANELS, 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not (beside or below)


@pytest.mark.parametrize("panel", GRAPHS, ids=lambda panel: panel["title"])
def test_every_panel_has_a_description_and_a_unit(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 20
    assert panel["type"] == "table" or panel["fieldConfig"]["defaults"]["unit"]
    references = [target["refId"] for target in panel["targets"]]
    assert len(references) == len(set(references))


def run_promtool(*arguments: str) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not on PATH; it comes with Prometheus")
    result = subprocess.run([tool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "check",
    [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml"), ("check", "config", "prometheus.yml")],
)
def test_prometheus_accepts_the_files(check: tuple[str, ...]) -> None:
    run_promtool(*check)


def test_prometheus_parses_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m").replace("$job", "tokenkeeper")}
        for number, text in enumerate(list_dashboard_expressions())
    ]
    file = tmp_path / "dashboard.json"  # JSON is valid YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    run_promtool("check", "rules", str(file))
