"""Command lines: a parser from the docstring of a tool's module, and whole numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from train import let_names_through


def parser_of(doc: str) -> argparse.ArgumentParser:
    """A parser whose help says what the docstring says; from here on any name can be printed.

    Args:
        doc: a line that says what the tool does; paragraphs, of which one begins with "Usage:" and
            holds commands that can be typed as they stand.
    """
    let_names_through()
    first, *paragraphs = doc.strip().split("\n\n")
    [usage] = [paragraph for paragraph in paragraphs if paragraph.startswith("Usage:\n")]
    paragraphs.remove(usage)
    examples = usage.replace("Usage:", "examples:", 1)
    return argparse.ArgumentParser(
        description="\n\n".join([first, *paragraphs]),
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def whole(least: int) -> Callable[[str], int]:
    """A reader of whole numbers, none below the least."""

    def read(word: str) -> int:
        if not word.isdecimal() or int(word) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, got {word}")
        return int(word)

    return read
