"""Silence loggers for a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(*names: str, level: int = logging.WARNING) -> Iterator[None]:
    """Show messages of some loggers from `level` on; their own levels are restored afterwards.

    Args:
        names: of the loggers; the engine's if none is named.
        level: least one that is shown.
    """
    loggers = [logging.getLogger(name) for name in names or ("dassl",)]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, own in zip(loggers, before, strict=True):
            logger.setLevel(own)
