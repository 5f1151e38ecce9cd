"""Command lines of the tools: a parser from a docstring, numbers, errors in one sentence."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

from runs.errors import explain
from runs.logs import make_streams_ready

DIGITS = 19  # of a number that is too large for 64 bits


def parser_of(doc: str) -> argparse.ArgumentParser:
    """A parser whose help is the docstring of a tool, with its paragraph "Usage:" at the end."""
    make_streams_ready()  # from here on any name can be printed
    paragraphs = doc.strip().split("\n\n")
    [usage] = [paragraph for paragraph in paragraphs if paragraph.startswith("Usage:\n")]
    paragraphs.remove(usage)
    return argparse.ArgumentParser(
        description="\n\n".join(paragraphs),
        epilog=usage.replace("Usage:", "examples:", 1),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A reader of whole numbers from `least` on, or up to `most`."""

    def read(word: str) -> int:
        number = int(word) if word.isascii() and word.isdecimal() and len(word) < DIGITS else -1
        if number < least or (most is not None and number > most):
            reach = f"from {least} on" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"must be a whole number {reach}, got {word:.60}")
        return number

    return read


def probability(word: str) -> float:
    """Read a number from 0 to 1."""
    try:
        number = float(word)
    except ValueError:
        number = float("nan")
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {word:.60}")
    return number


def reports_user_errors(main: Callable[..., int]) -> Callable[..., int]:
    """A tool's `main` that ends in one sentence and code 2 where the user can mend an error."""

    @wraps(main)
    def run(*args: Sequence[str] | None) -> int:
        try:
            code = main(*args)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # nobody reads on, as behind `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except Exception as error:
            said = explain(error)
            if not said or "--debug" in next(filter(None, args), sys.argv):
                raise
            sys.stderr.write(f"{Path(main.__code__.co_filename).stem}: error: {said}\n")
            return 2

    return run
