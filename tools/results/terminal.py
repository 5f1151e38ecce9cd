"""Tables that fit a terminal: columns without room are left out, and named.

Where the output is a file, or with --wide, every column is shown.
"""

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence

import pandas as pd
from tabulate import tabulate

from tools.results.cells import markdown_table

NO_LIMIT = 10000  # letters of a line
LEAST = 8  # letters of a column of words
WIDE = "show all columns, however narrow the terminal"


def add_wide(parser: argparse.ArgumentParser) -> None:
    """Add the flag for all columns."""
    parser.add_argument("--wide", action="store_true", help=WIDE)


def room(*, wide: bool) -> int:
    """Letters of a line: those of the terminal (or COLUMNS); of a file, or `wide`, NO_LIMIT."""
    if wide or not (sys.stdout.isatty() or "COLUMNS" in os.environ):
        return NO_LIMIT
    return shutil.get_terminal_size().columns


def leave_out(
    frame: pd.DataFrame, optional: Sequence[str], fits: Callable[[pd.DataFrame], bool]
) -> tuple[pd.DataFrame, list[str]]:
    """Return a table without those of the `optional` columns that have no room, and their names.

    They go in this order; one that has room after all, where a wider one went, comes back.
    """
    names: list[str] = []
    for name in filter(frame.__contains__, optional):
        if fits(frame.drop(columns=names)):
            break
        names.append(name)
    for name in names[::-1]:
        fewer = [other for other in names if other != name]
        names = fewer if fits(frame.drop(columns=fewer)) else names
    return frame.drop(columns=names), names


def wrapped(text: str, width: int) -> str:
    """Return a text in lines of at most `width` letters."""
    return textwrap.fill(text, width, break_on_hyphens=False)


def what_is_left_out(names: Sequence[str]) -> str:
    """Return a sentence on columns that are not shown; "" where all are."""
    return f"Not shown for want of room (--wide): {', '.join(names)}" if names else ""


def plain_table(frame: pd.DataFrame, **options: object) -> str:
    """Return a table without rules, with the options of `tabulate`."""
    rows = frame.astype(str).to_numpy().tolist()
    return str(tabulate(rows, list(frame), disable_numparse=True, **options))


def fitted(
    frame: pd.DataFrame,
    width: int,
    optional: Sequence[str] = (),
    table: Callable[..., str] = markdown_table,
    **options: object,
) -> str:
    """Return a table as text, no line longer than `width`, and below it what was left out.

    Where it is still too wide, the longest words go on in the next line. `table` makes the text of
    a frame, with `options`.
    """

    def excess(shown: pd.DataFrame) -> int:
        return max(map(len, table(shown, **options).splitlines()), default=0) - width

    shown, names = leave_out(frame, optional, lambda shown: excess(shown) <= 0)
    if (over := excess(shown)) > 0:
        sizes = [max(map(len, map(str, [name, *shown[name]]))) for name in shown]
        limits = [max(LEAST, size - over) if size == max(sizes) else None for size in sizes]
        options = options | {"maxcolwidths": limits}
    below = wrapped(what_is_left_out(names), width)
    return "\n".join(filter(None, (table(shown, **options), below)))
