"""What a process prints: its standard streams, and which log lines go there."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

PROJECT_LOGGERS = ("trainers", "models", "runs", "inference", "datasets")


def make_streams_ready() -> None:
    """Have the streams take any name of a file, and exist where the shell has closed them (>&-)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - open for the run
        with contextlib.suppress(AttributeError, OSError):  # not a text file of Python's own
            getattr(sys, name).reconfigure(errors="backslashreplace")
    with contextlib.suppress(AttributeError, OSError):
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]


def log_to_stdout(level: int) -> None:
    """Send the project's messages where Dassl's go; after `setup_logger` redirected stdout."""
    logging.raiseExceptions = False  # a line that cannot be written is lost, not the run
    logging.getLogger("dassl").setLevel(level)
    handler = logging.StreamHandler(sys.stdout)
    for name in PROJECT_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def log_to_file(text: str) -> None:
    """Write a text to the run's log.txt alone, after `setup_logger` redirected stdout to both."""
    file = getattr(sys.stdout, "file", None)
    if file is not None:
        with contextlib.suppress(OSError):
            file.write(f"{text}\n")
            file.flush()


@contextlib.contextmanager
def quiet(*names: str, level: int = logging.WARNING) -> Iterator[None]:
    """Hide messages below `level` of some loggers, or of the engine's if none is named."""
    before = {(found := logging.getLogger(n)): found.level for n in names or ("dassl",)}
    try:
        for logger in before:
            logger.setLevel(level)
        yield
    finally:
        for logger, own in before.items():
            logger.setLevel(own)
