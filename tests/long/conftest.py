"""Tests of minutes use the fixtures of the fault suite and of the journeys."""

from tests.faults.conftest import started_deployment as started_deployment  # noqa: PLC0414  a fixture, by name
from tests.journeys.conftest import idle_deployment as idle_deployment  # noqa: PLC0414  a fixture, by name
