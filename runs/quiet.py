"""Silence a logger for a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(name: str = "dassl", level: int = logging.WARNING) -> Iterator[None]:
    """Show a logger's messages from `level` on; its own level is restored afterwards.

    Args:
        name: of the logger; the engine's by default.
        level: least one that is shown.
    """
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
