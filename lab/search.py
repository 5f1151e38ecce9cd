"""Try every combination of a grid of settings on validation pictures of base classes.

Usage:
    python lab/search.py --trainer CoOp --datasets emoji_animals emoji_food \
        --grid OPTIM.LR 0.01 0.02 --grid INPUT.RRCROP_SCALE "(0.08,1.0)" "(0.9,1.0)"

Each row of the CSV is one training run (16 shots of base classes) and its accuracy on the whole
validation split of base classes. Test pictures and new classes are never read. Rows that are in the
file are not computed again, so a search that was stopped can be continued.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python lab/search.py`
from lab.validate import SHOTS, parser_of_runs, validate
from runs.logs import quiet
from tools.results.terminal import add_wide, fitted, room
from tools.shared.command_line import reports_user_errors
from tools.sweeps import names

OUTPUT = Path("docs/results/search.csv")
COLUMNS = ["trainer", "config", "settings", "dataset", "seed", "accuracy"]


def combinations(grid: list[list[str]]) -> Iterator[list[str]]:
    """KEY VALUE lists, every combination of the values."""
    axes = [[(key, value) for value in values] for key, *values in grid]
    for chosen in itertools.product(*axes):
        yield list(itertools.chain(*chosen))


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
    """A data set's name in the table: its stem, or the label of the user's own pictures."""
    own = dataset == names.OWN_STEM
    return str(names.read_data(names.OWN, Path(root)).label) if own else dataset


def read_rows(path: Path) -> pd.DataFrame:
    """The rows that were found so far."""
    if path.exists():
        return pd.read_csv(path, keep_default_na=False)
    return pd.DataFrame(columns=COLUMNS)


def search(args: argparse.Namespace) -> pd.DataFrame:
    """Run the missing combinations; write every result at once."""
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
    parser, grid = parser_of_runs(__doc__), {"action": "append", "default": []}
    parser.add_argument("--grid", nargs="+", metavar="KEY VALUE", help="a key, its values", **grid)
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"CSV of the rows ({OUTPUT})")
    add_wide(parser)
    return parser.parse_args(argv, argparse.Namespace(held_out=False))


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Search; print the mean of each combination over the data sets."""
    args = parse_args(argv)
    with quiet():
        found = search(args)
    wanted = [name_of(dataset, args.root) for dataset in args.datasets]
    mine = found[(found.trainer == args.trainer) & found.dataset.isin(wanted)]
    table = mine.groupby(["config", "settings"], sort=False).accuracy.agg(["mean", "count"])
    print(fitted(table.reset_index(), room(wide=args.wide), floatfmt=".2f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
