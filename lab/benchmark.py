"""Time our trainers beside their published formulations, which are checked to be equal first.

Usage:
    python lab/benchmark.py --quick
    python lab/benchmark.py train --trainers CoOp MaPLe --classes 100
    python lab/benchmark.py eval --trainers Spotlighter --sweep keep
    python lab/benchmark.py loader --workers 0 2
    python lab/benchmark.py end2end --images 128
    python lab/benchmark.py run --trainers CoOp
    python lab/benchmark.py second --trainers CoOp
    python lab/benchmark.py tower
    python lab/benchmark.py plot

Weights are random and pictures are noise: accuracy is not measured. After a warm-up the forms take
turns in rounds, and the clock is read once the device has finished. Where a form takes more than
5 s, there are one warm-up and three rounds. Rows are added to results.csv in the folder --output;
table.md and the plots are then written again from all its rows.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python lab/benchmark.py`
# Silences the memory profiler on stderr; torch reads both when it loads.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import pandas as pd
from rich.console import Console

from lab.bench.arguments import parse_arguments
from tools.shared.command_line import reports_user_errors

FILE_WIDTH = 250  # characters of a line outside a terminal; no table is wider


def write_rows(args: Namespace, results: Path) -> dict[str, float] | None:
    """Measure; write the rows of every condition at once. Returns the ratios of --quick."""
    from lab.bench.clock import REPORT
    from lab.bench.commands import measure, quick, require_device
    from lab.bench.rows import append_rows

    with REPORT:
        if args.quick:
            require_device(args.device)
            rows, ratios = quick(args.threads, args.device)
            append_rows(results, rows)
            return ratios
        for rows in measure(args):
            append_rows(results, rows)
    return None


def show(frame: pd.DataFrame) -> None:
    """Print a table a command."""
    from lab.bench.tables import to_rich

    is_terminal = sys.stdout.isatty()
    console = Console(width=None if is_terminal else FILE_WIDTH)
    width = console.width if is_terminal else None
    for command, rows in frame.groupby("command", sort=False):
        console.print(to_rich(rows, command, width))


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the results, print the new rows."""
    args = parse_arguments(__doc__, arguments)
    from lab.bench.plots import write_plots
    from lab.bench.rows import read_rows
    from lab.bench.tables import newest, write_markdown

    for name in ("trainers", "runs"):
        logging.getLogger(name).setLevel(logging.WARNING)
    results = args.output / "results.csv"
    before = len(read_rows(results))  # a file of another version is refused before measuring
    ratios = None if args.command == "plot" else write_rows(args, results)
    frame = read_rows(results)
    if frame.empty:
        raise ValueError(f"{results} holds no rows yet; measure something first")
    write_markdown(frame, args.output / "table.md")
    plots = write_plots(frame, args.output)
    show(newest(frame) if args.command == "plot" else frame[before:])
    names = ["results.csv", "table.md", *(path.name for path in plots)]
    print(f"written in {args.output}: {', '.join(names)}")
    if ratios is not None:
        print(json.dumps(ratios))
    return 0


if __name__ == "__main__":
    sys.exit(main())
