"""Collect the results of runs into tables: mean, spread and harmonic mean over seeds.

Usage:
    python tools/collect_results.py output
    python tools/collect_results.py output/base2new --published --markdown table.md --csv table.csv

Every results.json below ROOT is read, and every log.txt that has no results.json beside it; such
logs must lie in the folders that CoOp and its relatives write. Runs on base and on new classes are
paired by trainer, data set, config, settings, shots and seed. Runs of one config that differ in
settings, data or weights are rows of their own, and the column `settings` says what differs. There
is a table a protocol.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/collect_results.py`
from tools.results.cells import csv_frame
from tools.results.read import EFFORT
from tools.results.rows import (
    COLUMNS,
    Section,
    load_runs,
    order_rows,
    pair_runs,
    split_sections,
    with_average,
)
from tools.results.tables import (
    beside_published,
    published_table,
    to_latex,
    to_markdown,
    to_rich,
    to_text,
)
from tools.shared.command_line import parser_of, reports_user_errors

FILE_WIDTH = 200  # characters


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("root", type=Path, help="folder below which results are looked for")
    parser.add_argument("--csv", type=Path, help="write one row a seed to this file")
    parser.add_argument(
        "--columns",
        nargs="+",
        choices=COLUMNS,
        default=COLUMNS,
        metavar="NAME",
        help=f"columns of the CSV, out of {', '.join(COLUMNS)}",
    )
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    parser.add_argument("--latex", type=Path, help="the same as LaTeX, for the package booktabs")
    parser.add_argument(
        "--published", action="store_true", help="set the literature's figures beside ours"
    )
    return parser.parse_args(arguments)


def text_of(section: Section, published: bool) -> pd.DataFrame:
    """The table of a section as strings, with the published figures if they are asked for."""
    summary = with_average(section)
    return to_text(beside_published(summary) if published and "hm" in section.scores else summary)


def wide_console() -> Console:
    """The terminal; what is none, and says no width, takes tables of any."""
    console = Console()
    known = console.is_terminal or "COLUMNS" in os.environ
    return console if known else Console(width=FILE_WIDTH)


def fitting(text: pd.DataFrame, title: str, console: Console) -> Table:
    """A table that is not cut: without speed and size where the terminal is too narrow."""
    table = to_rich(text, title)
    if Measurement.get(console, console.options, table).minimum <= console.width:
        return table
    return to_rich(text.drop(columns=EFFORT), title)


def write(path: Path | None, texts: dict[str, pd.DataFrame], form: Callable) -> None:
    """Write the tables in one of the forms, if a file is named."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        tables = [form(text, title) for title, text in texts.items()]
        path.write_text("\n".join(tables), encoding="utf-8")


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the tables; returns 1 if nothing was found, 2 if a file fails."""
    args = parse_arguments(arguments)
    runs = load_runs(args.root)
    if not runs:
        print(f"no results below {args.root}", file=sys.stderr)
        return 1
    try:
        return show(args, pair_runs(runs))
    except OSError as error:
        print(f"collect_results: error: {error}", file=sys.stderr)
        return 2


def show(args: argparse.Namespace, rows: pd.DataFrame) -> int:
    """Print the tables and write those that files are named for; returns the exit code."""
    texts = {s.title: text_of(s, args.published) for s in split_sections(rows)}
    console = wide_console()
    for title, text in texts.items():
        console.print(fitting(text, title, console))
    if args.published:
        console.print(published_table())
    write(args.markdown, texts, to_markdown)
    write(args.latex, texts, to_latex)
    if args.csv:
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        table = csv_frame(order_rows(rows)[args.columns])
        table.to_csv(args.csv, index=False, float_format="%.4f")
    return 0


if __name__ == "__main__":
    sys.exit(main())
