"""Log lines: through ``logging`` to the current standard output, and from there to a file.

The logger "dassl" has one handler, which looks up ``sys.stdout`` at each line. So a line reaches
the terminal when nobody has configured logging, and the log file as well once ``setup_logger`` has
replaced ``sys.stdout``. It does not propagate: an application that puts a handler on the root
logger sees each line once.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

__all__ = ["Logger", "attach_stdout_handler", "setup_logger"]


class _CurrentStdoutHandler(logging.Handler):
    """Write each record to whatever ``sys.stdout`` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stdout.write(self.format(record) + "\n")
            sys.stdout.flush()
        except Exception:
            self.handleError(record)


def attach_stdout_handler() -> None:
    """Give the logger "dassl" its handler, unless the user has set one before."""
    logger = logging.getLogger("dassl")
    if logger.handlers:
        return
    logger.addHandler(_CurrentStdoutHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False


class Logger:
    """A text stream that writes to the console and to a new file; its folder is made if needed."""

    def __init__(self, fpath: str | Path) -> None:
        current = sys.stdout
        self.console: TextIO = current.console if isinstance(current, Logger) else current
        Path(fpath).parent.mkdir(parents=True, exist_ok=True)
        self.file: TextIO | None = Path(fpath).open(  # noqa: SIM115 - open for the run
            "w", encoding="utf-8", errors="backslashreplace"  # escapes a name that is not UTF-8
        )

    def __getattr__(self, name: str) -> object:
        """Answer ``isatty``, ``encoding`` and the like as the console does."""
        if name in {"console", "file"}:
            raise AttributeError(name)
        return getattr(self.console, name)

    def write(self, msg: str) -> int:
        """Write a text to both."""
        with self._console_may_fail():
            self.console.write(msg)
        with self._file_may_fail():
            if self.file is not None:
                self.file.write(msg)
        return len(msg)

    def flush(self) -> None:
        """Flush both, so that a killed run leaves a complete log."""
        with self._console_may_fail():
            self.console.flush()
        with self._file_may_fail():
            if self.file is not None:
                self.file.flush()

    def close(self) -> None:
        """Close the file; the console stays open."""
        with self._file_may_fail():
            if self.file is not None:
                self.file.close()
        self.file = None

    @contextmanager
    def _console_may_fail(self) -> Iterator[None]:
        """Drop the console when it cannot be written: `head` has ended, or the disk is full."""
        try:
            yield
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.console.fileno())
            os.close(nowhere)

    @contextmanager
    def _file_may_fail(self) -> Iterator[None]:
        """Drop the file when it cannot be written, as on a full disk; the run goes on."""
        try:
            yield
        except OSError as error:
            file, self.file = self.file, None
            self.console.write(f"The log file is no longer written: {error}\n")
            with suppress(OSError):  # it tries once more to write what it holds
                file.close()  # type: ignore[union-attr]


def setup_logger(output: str | Path | None = None) -> None:
    """Copy standard output from now on into ``log.txt`` of a folder, or a .txt or .log file.

    A second call replaces the file. A file that exists is kept: the new one is named with the date.
    """
    if output is None or str(output) == "":
        return
    fpath = Path(output)
    if fpath.suffix not in {".txt", ".log"}:
        fpath = fpath / "log.txt"
    if fpath.exists():
        fpath = fpath.with_name(fpath.name + time.strftime("-%Y-%m-%d-%H-%M-%S"))
    previous = sys.stdout
    sys.stdout = Logger(fpath)
    if isinstance(previous, Logger):
        previous.close()
