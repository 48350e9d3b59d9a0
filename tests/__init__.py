"""Tests: unit/, integration/, journeys/, browser/."""
