"""A log keeps silent while a tool that has a table of its own to print does its work."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(name: str = "dassl", level: int = logging.WARNING) -> Iterator[None]:
    """Let a logger speak from a level on; afterwards it speaks as before.

    Args:
        name: of the logger; the engine's if none is named.
        level: least one that is shown.
    """
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
