"""Search settings on base validation pictures, every combination of a grid; the result is a file.

Usage:
    python lab/search.py --trainer CoOp --datasets emoji_animals emoji_food \
        --grid OPTIM.LR 0.01 0.02 --grid INPUT.RRCROP_SCALE "(0.08,1.0)" "(0.9,1.0)"

Each row of the CSV is one training run (16 shots of base classes) and its accuracy on the whole
base validation split; test pictures and new classes are never read. Rows that are in the file are
not computed again, so that a search that was cut off goes on.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python lab/search.py`
from lab.validate import validate
from runs.quiet import quiet
from tools.results.cells import markdown_table
from tools.shared.command_line import parser_of, reports_user_errors
from tools.sweeps import names

SHOTS = 16
OUTPUT = Path("docs/results/search.csv")
COLUMNS = ["trainer", "config", "settings", "dataset", "seed", "accuracy"]


def combinations(grid: list[list[str]]) -> Iterator[list[str]]:
    """KEY VALUE lists, every combination of the values."""
    axes = [[(key, value) for value in values] for key, *values in grid]
    for chosen in itertools.product(*axes):
        yield [word for pair in chosen for word in pair]


def run(args: argparse.Namespace, opts: list[str], dataset: str) -> dict[str, object]:
    """One row, without its accuracy; shots beside the usual ones count as a setting."""
    shots = ["DATASET.NUM_SHOTS", str(args.shots)] if args.shots != SHOTS else []
    return {
        "trainer": args.trainer,
        "config": args.config,
        "settings": " ".join([*opts, *shots]),
        "dataset": name_of(dataset, args.root),
        "seed": args.seed,
    }


def name_of(dataset: str, root: str) -> str:
    """A data set in the table: its stem, or the label of the user's own pictures."""
    own = dataset == names.OWN_STEM
    return str(names.read_data(names.OWN, Path(root)).label) if own else dataset


def read_rows(path: Path) -> pd.DataFrame:
    """What was found so far."""
    return (
        pd.read_csv(path, keep_default_na=False)
        if path.exists()
        else pd.DataFrame([], None, COLUMNS)
    )


def search(args: argparse.Namespace) -> pd.DataFrame:
    """Run what is missing; every result is written at once."""
    for opts, dataset in itertools.product(combinations(args.grid), args.datasets):
        row, found = run(args, opts, dataset), read_rows(args.output)
        if (found[list(row)] == pd.Series(row)).all(axis=1).any():
            continue
        args.opts = opts
        row["accuracy"] = round(validate(args, dataset)["base"], 2)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        line = pd.DataFrame([row], columns=COLUMNS)
        line.to_csv(args.output, mode="a", header=not args.output.exists(), index=False)
        print(*row.values(), flush=True)
    return read_rows(args.output)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--datasets", nargs="+", required=True, help="stems of configs/datasets")
    parser.add_argument("--config", default="tiny_emoji", help="stem of the trainer's yaml")
    parser.add_argument(
        "--grid", nargs="+", action="append", default=[], metavar="KEY VALUE", help="one axis"
    )
    parser.add_argument("--root", default="data")
    parser.add_argument("--shots", type=int, default=SHOTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    return parser.parse_args(argv, argparse.Namespace(held_out=False))


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Search, print the mean of each combination over the data sets."""
    args = parse_args(argv)
    with quiet():
        found = search(args)
    wanted = [name_of(dataset, args.root) for dataset in args.datasets]
    mine = found[(found.trainer == args.trainer) & found.dataset.isin(wanted)]
    table = mine.groupby(["config", "settings"], sort=False).accuracy.agg(["mean", "count"])
    print(markdown_table(table.reset_index(), floatfmt=".2f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
