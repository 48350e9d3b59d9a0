"""The files around the code: workflow, issue forms and package metadata are valid and say the same as the code."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import version

import pytest

from tests.support.environment import ROOT
from tests.support.json_schemas import find_schema_errors

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.github-workflows", ".github/workflows/ci.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/bug_report.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/feature_request.yml"),
        ("vendor.github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("vendor.compose-spec", "docker-compose.yml"),
    ],
)
def test_a_file_matches_the_schema_of_its_format(schema: str, path: str) -> None:
    assert find_schema_errors(schema, ROOT / path) == ""


def test_the_workflow_runs_the_same_script_as_every_other_ci() -> None:
    assert "run: bash .ci/run" in (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")


def test_the_development_container_is_valid_json_and_its_image_is_built_from_a_file_that_exists() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).is_file()


def test_the_changelog_has_a_section_for_the_version_of_the_package() -> None:
    number = PYPROJECT["project"]["version"]
    assert f"## [{number}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert version("tokenkeeper") == number


def test_the_licence_of_the_package_is_the_licence_file() -> None:
    assert PYPROJECT["project"]["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
