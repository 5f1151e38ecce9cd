"""The engine keeps silent while a tool that builds trainers has a table of its own to print."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_engine() -> Iterator[None]:
    """Let the engine's log warn, and say nothing else."""
    engine = logging.getLogger("dassl")
    level = engine.level
    engine.setLevel(logging.WARNING)
    try:
        yield
    finally:
        engine.setLevel(level)
