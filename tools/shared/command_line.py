"""Command lines: a parser from the docstring of a tool's module, whole numbers, errors, streams."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

# What a user can mend: input, files, packages, memory, and a loss that diverged.
USER_ERRORS = (ValueError, OSError, ModuleNotFoundError, FloatingPointError, MemoryError)
DIGITS = 19  # of a number that is too large for 64 bits


def parser_of(doc: str) -> argparse.ArgumentParser:
    """A parser whose help says what the docstring says; from here on any name can be printed.

    Args:
        doc: a line that says what the tool does; paragraphs, of which one begins with "Usage:" and
            holds commands that can be typed as they stand.
    """
    make_streams_ready()
    first, *paragraphs = doc.strip().split("\n\n")
    [usage] = [paragraph for paragraph in paragraphs if paragraph.startswith("Usage:\n")]
    paragraphs.remove(usage)
    examples = usage.replace("Usage:", "examples:", 1)
    return argparse.ArgumentParser(
        description="\n\n".join([first, *paragraphs]),
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A reader of whole numbers from `least` on, up to `most` where it is given."""

    def read(word: str) -> int:
        number = int(word) if word.isascii() and word.isdecimal() and len(word) < DIGITS else -1
        if number < least or (most is not None and number > most):
            reach = f"from {least} on" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"must be a whole number {reach}, got {word:.60}")
        return number

    return read


def reports_user_errors(main: Callable[..., int]) -> Callable[..., int]:
    """A tool's `main` that ends in one sentence and code 2 where the user can mend an error.

    With --debug such an error is raised. Where nobody reads on, as behind `| head`, the code is 0.
    """

    @wraps(main)
    def run(*args: Sequence[str] | None) -> int:
        try:
            code = main(*args)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except Exception as error:
            from runs.faults import of_the_machine, sentence

            # Where torch lacks memory or a worker, its error is of no kind of its own.
            known = isinstance(error, USER_ERRORS) or of_the_machine(error)
            if not known or "--debug" in next(filter(None, args), sys.argv):
                raise
            tool = Path(main.__code__.co_filename).stem
            sys.stderr.write(f"{tool}: error: {sentence(error)}\n")
            return 2

    return run


def make_streams_ready() -> None:
    """Have the streams take any name of a file, and exist where the shell has closed them (>&-)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - open for the run
        with contextlib.suppress(AttributeError, OSError):  # not a text file of Python's own
            getattr(sys, name).reconfigure(errors="backslashreplace")
    with contextlib.suppress(AttributeError, OSError):
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
