"""The journeys' world, for what takes minutes."""

from tests.faults.conftest import grounds as grounds  # noqa: PLC0414  likewise
from tests.journeys.conftest import world as world  # noqa: PLC0414  a fixture, by name
