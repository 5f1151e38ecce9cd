"""Command lines: a parser from the docstring of a tool's module, and whole numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable

DIGITS = 19  # of a number that is too large for 64 bits


def parser_of(doc: str) -> argparse.ArgumentParser:
    """A parser whose help says what the docstring says.

    Args:
        doc: a line that says what the tool does; paragraphs, of which one begins with "Usage:" and
            holds commands that can be typed as they stand.
    """
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
