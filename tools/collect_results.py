"""Collect the results of runs into a table: mean, spread and harmonic mean over seeds.

Usage:
    python tools/collect_results.py ROOT [--csv FILE] [--markdown FILE] [--published]

Every results.json below ROOT is read, and every log.txt that has no results.json beside it; such
logs must lie in the folders that CoOp and its relatives write. Runs on base and on new classes are
paired by trainer, data set, config, shots and seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/collect_results.py`
from tools.result_table import AVERAGE, order_rows, published_table, to_markdown, to_rich, to_text
from tools.run_results import CLASSES, EFFORT, GROUP, KEY, read_runs

SCORES = [*CLASSES, "hm"]  # percent
COLUMNS = ["trainer", "dataset", "config", "shots", "seed", *SCORES, *EFFORT]


def harmonic_mean(base: Any, new: Any) -> Any:
    """Return 2 / (1/base + 1/new); 0 where both are 0 or one of them is."""
    total = base + new
    return np.where(total > 0, 2 * base * new / np.where(total > 0, total, 1), total)


def drop_repeats(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the last of runs that agree in everything that identifies a run; say if there were."""
    last = {tuple(run[name] for name in (*KEY, "classes")): run for run in runs}
    if len(last) < len(runs):
        count = len(runs) - len(last)
        print(f"{count} of {len(runs)} runs are repeated; the last by path counts", file=sys.stderr)
    return list(last.values())


def pair_runs(runs: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return one row a trainer, data set, config, shots and seed, with COLUMNS.

    images_per_s is the mean over the runs of a row.
    """
    frame = pd.DataFrame(runs).reindex(columns=[*KEY, "classes", "accuracy", *EFFORT])
    frame = frame.astype(dict.fromkeys(["accuracy", *EFFORT], float))
    rows = frame.pivot(index=KEY, columns="classes", values="accuracy").reindex(columns=CLASSES)
    rows["hm"] = harmonic_mean(rows["base"], rows["new"])
    groups = frame.groupby(KEY)
    rows["images_per_s"] = groups["images_per_s"].mean()
    rows["learned_parameters"] = groups["learned_parameters"].max().astype("Int64")
    return rows.reset_index()[COLUMNS]


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row a group: means over seeds, and the standard deviation as e.g. base_std.

    One seed has no standard deviation; a seed without a score is left out of that score's mean.
    `seeds` is the number of seeds.
    """
    groups = rows.groupby(GROUP)
    summary = groups[[*SCORES, *EFFORT]].mean()
    for column in SCORES:
        summary[f"{column}_std"] = groups[column].std(ddof=1)
    summary["seeds"] = groups.size()
    return summary.reset_index()


def average_datasets(summary: pd.DataFrame) -> pd.DataFrame:
    """Return one row a trainer: means over the data sets; HM is that of the means.

    A score is missing where the trainer lacks it on one of the table's data sets.
    """
    wanted = summary["dataset"].nunique()
    groups = summary.groupby(GROUP[1:])
    average = groups[[*SCORES, *EFFORT]].mean()
    average[SCORES] = average[SCORES].where(groups[SCORES].count() == wanted)
    average["hm"] = harmonic_mean(average["base"], average["new"])
    average["seeds"] = groups["seeds"].min()
    return average.reset_index().assign(dataset=AVERAGE)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
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
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    parser.add_argument(
        "--published", action="store_true", help="show the literature's figures too"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the tables; returns the exit code, 1 if nothing was found."""
    args = parse_arguments(arguments)
    runs = list(read_runs(args.root))
    if not runs:
        print(f"no results below {args.root}", file=sys.stderr)
        return 1
    rows = pair_runs(drop_repeats(runs))
    summary = summarise(rows)
    if summary["dataset"].nunique() > 1:
        summary = pd.concat([summary, average_datasets(summary)])
    text = to_text(order_rows(summary))
    Console().print(to_rich(text))
    if args.published:
        Console().print(published_table())
    if args.csv:
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        order_rows(rows).to_csv(args.csv, columns=args.columns, index=False, float_format="%.4f")
    if args.markdown:
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        args.markdown.write_text(to_markdown(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
