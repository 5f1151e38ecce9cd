"""Time our trainers beside their published formulations, which are checked to be equal first.

Usage:
    python lab/benchmark.py --quick
    python lab/benchmark.py train --trainers CoOp MaPLe --classes 100
    python lab/benchmark.py eval --trainers Spotlighter --sweep keep
    python lab/benchmark.py loader --workers 0 2
    python lab/benchmark.py end2end --images 128
    python lab/benchmark.py plot

Weights are random and pictures are noise: accuracy plays no part. After a warm-up the forms take
turns in rounds, and the clock is read behind a synchronised device. Where a form takes more than
5 s, there are one warm-up and three rounds. Rows are added to results.csv in the folder --output;
table.md and the plots are made anew of all its rows.
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
# Lines that the memory profiler writes to stderr by itself; both are read when torch loads.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import pandas as pd
import torch
from rich.console import Console

from lab.bench.arguments import parse_arguments
from lab.bench.commands import require_device, tasks
from lab.bench.plots import write_plots
from lab.bench.progress import Report
from lab.bench.quick import run_quick
from lab.bench.rows import append_rows, read_rows
from lab.bench.tables import newest, to_rich, write_markdown
from tools.shared.command_line import reports_user_errors

FILE_WIDTH = 250  # characters, of what is no terminal; no table is wider
USER_ERRORS = (ValueError, OSError, ModuleNotFoundError, torch.OutOfMemoryError)


def measure(args: Namespace) -> dict[str, float] | None:
    """Run a command; every condition's rows are written as soon as they are there.

    Returns:
        The ratios of --quick.
    """
    results = args.output / "results.csv"
    read_rows(results)  # a file that does not fit is better found before than after
    with Report() as report:
        if args.quick:
            require_device(args.device)
            rows, ratios = run_quick(threads=args.threads, device=args.device, tell=report.start)
            append_rows(results, rows)
            return ratios
        for task in tasks(args):
            report.start(task.what)
            append_rows(results, task.measure(report.tell))
    return None


def show(frame: pd.DataFrame) -> None:
    """Print a table a command."""
    console = Console()
    width = console.width if console.is_terminal else None
    if width is None:
        console = Console(width=FILE_WIDTH)
    for command, rows in frame.groupby("command", sort=False):
        console.print(to_rich(rows, command, width))


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; an error of the user's ends in one sentence and exit code 2."""
    args = parse_arguments(__doc__, arguments)
    for name in ("trainers", "runs"):
        logging.getLogger(name).setLevel(logging.WARNING)
    results = args.output / "results.csv"
    try:
        before = len(read_rows(results))
        ratios = None if args.command == "plot" else measure(args)
        frame = read_rows(results)
        if frame.empty:
            raise ValueError(f"{results} holds no rows yet; measure something first")
        write_markdown(frame, args.output / "table.md")
        plots = write_plots(frame, args.output)
    except USER_ERRORS as error:
        if args.debug:
            raise
        print(f"benchmark.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    show(newest(frame) if args.command == "plot" else frame[before:])
    names = ["results.csv", "table.md", *(path.name for path in plots)]
    print(f"written in {args.output}: {', '.join(names)}")
    if ratios is not None:
        print(json.dumps(ratios))
    return 0


if __name__ == "__main__":
    sys.exit(main())
