"""The journeys' world, for what takes minutes."""

from tests.journeys.conftest import world as world  # noqa: PLC0414  a fixture, by name
