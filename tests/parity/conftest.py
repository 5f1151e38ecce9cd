"""Fixtures of the tests of parity."""

from tests.parity.towers import towers  # noqa: F401  (a fixture)
