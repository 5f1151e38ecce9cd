"""Compare trainers picture by picture: differences of means, with bootstrap intervals.

Usage:
    python tools/compare_trainers.py output/emoji --of Spotlighter --csv docs/results/x.csv

Reads results.json and predictions.csv of base-to-new runs (scripts/compare.sh leaves both).
Differences are taken on the same test pictures, data sets and seeds; runs on other pictures are
refused. Runs of other settings are trainers of their own. Intervals hold 95 % of a bootstrap over
seeds and pictures (scipy.stats.bootstrap); the harmonic mean is taken for each data set and seed,
then averaged. Standard deviations are those of a sample of seeds (n - 1). A second table has the
negative log-likelihood (nll, nats a picture) and the calibration error (ece, percent) of the
probabilities; a trainer's cells are empty where one of its runs lacks them. Rows are best first, by
the harmonic mean. Training is a mean over runs, in processor seconds on a CPU, in seconds of the
wall on a GPU. A terminal shows the columns that it has room for (--wide: all).
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/compare_trainers.py`
from tools.results.cells import csv_frame
from tools.results.read import EFFORT, KEY, MEASURES, read_predictions
from tools.results.rows import (
    IN_WORDS,
    ORDERS,
    SAMPLE,
    harmonic_mean,
    load_runs,
    trainer_rank,
)
from tools.results.tables import HEADINGS, new_classes_of, rounded, with_deviation
from tools.results.terminal import add_wide, fitted, room, wrapped
from tools.shared.command_line import parser_of, reports_user_errors
from tools.sweeps.names import shots_in_words

HALVES = ("base", "new")
Halves = dict[str, np.ndarray]  # by half
SCORES = [*HALVES, "hm"]
COLUMNS = ["trainer", "dataset", "seed", *SCORES, *EFFORT]
CALIBRATION = [f"{measure}_{half}" for measure in MEASURES for half in HALVES]
RESAMPLES = 2000  # of the bootstrap
# Columns that a narrow terminal does not show, the first ones first.
OPTIONAL = ["data sets", "seeds", "learned parameters", "training s", "new", "base"]
OF_PROBABILITIES = ["nll new", "ece new"]
TINY = "tiny_emoji_"  # configs of this prefix are named by the rest, as Spotlighter-random


def as_number(value: float | None) -> float:
    """Return NaN for what a run does not say; with kept features it says no images/s."""
    return float("nan") if value is None else value


def read_pair(base: dict[str, Any], new: dict[str, Any], *, with_shots: bool) -> dict[str, Any]:
    """Return what is known of both halves of a run: COLUMNS, CALIBRATION, path, git, its pictures.

    `right`: by half, whether each picture was recognised. `tested`: digest of the data (None if
    unknown) and labels of both halves.
    """
    config = base["config"].removeprefix(TINY)
    name = base["trainer"] + (f"-{config}" if config != base["config"] else "")
    shots = shots_in_words(base["shots"]) if with_shots else ""
    predictions = [read_predictions(Path(run["path"])) for run in (base, new)]
    right = [(found.label == found.predicted).to_numpy() for found in predictions]
    labels = [found.label.to_numpy().tobytes() for found in predictions]
    digests = [run["record"].get("data") for run in (base, new)]
    return {
        **{key: base[key] for key in ("dataset", "seed", "learned_parameters", "path")},
        "trainer": ", ".join(filter(None, (name, base["settings"], shots))),
        **{"base": base["accuracy"], "new": new["accuracy"]},
        "hm": float(harmonic_mean(base["accuracy"], new["accuracy"])),
        **{f"{name}_{half['classes']}": half[name] for name in MEASURES for half in (base, new)},
        "images_per_s": np.mean([as_number(half["images_per_s"]) for half in (base, new)]),
        "train_s": base["train_s"],
        "git": str(base["record"].get("git")),
        "right": dict(zip(HALVES, right, strict=True)),
        "tested": (*digests, *labels),
    }


def read_trainers(root: Path) -> dict[str, pd.DataFrame]:
    """Return by trainer a row of `read_pair` for each data set and seed that has both halves."""
    runs = [run for run in load_runs(root) if "record" in run and run["source"] == run["dataset"]]
    base, new = (
        {tuple(run[key] for key in KEY): run for run in runs if run["classes"] == half}
        for half in HALVES
    )
    several = len({run["shots"] for run in (*base.values(), *new.values())}) > 1
    pairs = [read_pair(base[key], new[key], with_shots=several) for key in base if key in new]
    if not pairs:
        raise ValueError(f"no finished base-to-new run below {root}; scripts/compare.sh makes some")
    rows = pd.DataFrame(pairs).astype(dict.fromkeys([*CALIBRATION, "train_s"], float))
    rows = rows.set_index(["dataset", "seed"], drop=False).rename_axis([None, None])
    again = rows[rows.duplicated(["trainer", "dataset", "seed"])]
    if len(again):
        words = "two runs of {trainer} on {dataset}, seed {seed}, as {path}"
        raise ValueError(words.format(**again.iloc[0]))
    return dict(iter(rows.groupby("trainer", sort=False)))


def common(ours: pd.DataFrame, other: pd.DataFrame) -> tuple[list[str], list[int]]:
    """Return the data sets of both trainers, and the seeds that both have on all of them."""
    cells = sorted(ours.index.intersection(other.index))
    for cell in cells:
        pairs = zip(ours.tested[cell], other.tested[cell], strict=True)
        if any(a != b and None not in (a, b) for a, b in pairs):
            names = " and ".join(runs.trainer[cell] for runs in (ours, other))
            raise ValueError(
                f"{names} were tested on other pictures of {cell[0]}, seed {cell[1]}, so they "
                "cannot be compared picture by picture; choose a folder with runs on the same data"
            )
    sets = sorted({one for one, _ in cells})
    seeds = {seed for _, seed in cells}
    return sets, sorted(s for s in seeds if all((one, s) in cells for one in sets))


def score(correct: Halves, seeds: np.ndarray, drawn: Halves) -> np.ndarray:
    """Return base, new and harmonic mean in percent over data sets, seeds and drawn pictures."""
    found = []  # (data sets, seeds)
    for half, hits in correct.items():
        times = np.bincount(drawn[half], minlength=hits.shape[-1])
        found.append(100 * (hits @ times)[:, seeds] / len(drawn[half]))
    return np.array([values.mean() for values in (*found, harmonic_mean(*found))])


def interval(
    draws: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of the 95 % interval of a statistic of what is drawn."""
    chosen = {"vectorized": False, "method": "percentile", "n_resamples": resamples, "rng": 0}
    low, high = bootstrap(draws, statistic, **chosen).confidence_interval
    return low, high


def compare(ours: pd.DataFrame, other: pd.DataFrame, resamples: int) -> dict[str, object]:
    """Return mean difference and its interval for base, new and harmonic mean."""
    sets, seeds = common(ours, other)
    if not seeds:
        return {"data sets": len(sets), "seeds": 0}

    def stacked(runs: pd.DataFrame, half: str) -> np.ndarray:  # (data sets, seeds, pictures)
        return np.stack([[runs.right[one, seed][half] for seed in seeds] for one in sets])

    try:
        hits = [{half: stacked(runs, half) for half in HALVES} for runs in (ours, other)]
    except ValueError as error:
        raise ValueError(
            f"{', '.join(sets)} have different numbers of test pictures, so no picture can be "
            "drawn from all at once; compare folders with one data set each"
        ) from error

    def difference(seed: np.ndarray, base: np.ndarray, new: np.ndarray) -> np.ndarray:
        drawn = {"base": base, "new": new}
        return score(hits[0], seed, drawn) - score(hits[1], seed, drawn)

    draws = tuple(np.arange(n) for n in (len(seeds), *(hits[0][h].shape[-1] for h in HALVES)))
    cells = [f"{mean:+.2f}" for mean in difference(*draws)]
    if len(seeds) > 1:  # one seed says nothing of the spread of seeds
        bounds = zip(*interval(draws, difference, resamples), strict=True)
        pairs = zip(cells, bounds, strict=True)
        cells = [f"{cell} [{low:+.2f}, {high:+.2f}]" for cell, (low, high) in pairs]
    found = dict(zip(SCORES, cells, strict=True))
    return {"data sets": len(sets), "seeds": len(seeds)} | found


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over data sets and seeds, with the standard deviation of the seeds' means."""
    trainers = rows.groupby("trainer", sort=False)
    table = trainers[["dataset", "seed"]].nunique()
    table.columns = ["data sets", "seeds"]
    table = table.join(seed_means(rows, SCORES))
    if rows["train_s"].notna().any():
        table[HEADINGS["train_s"]] = trainers["train_s"].mean().map(rounded)
    table["learned parameters"] = trainers["learned_parameters"].max().map("{:,.0f}".format)
    return table.reset_index()


def in_order(trainers: dict[str, pd.DataFrame], order: str) -> dict[str, pd.DataFrame]:
    """Return trainers with the best mean harmonic mean first, or as defaults.yaml lists them."""

    def place(name: str) -> tuple[object, ...]:
        listed = trainer_rank(trainer_of(name))
        return listed if order == "listed" else (-trainers[name]["hm"].mean(), *listed)

    return {name: trainers[name] for name in sorted(trainers, key=place)}


def trainer_of(name: str) -> str:
    """Return the trainer of what a table calls "Spotlighter-random, N_CTX 4"."""
    return name.split(",")[0].split("-")[0]


def seed_means(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return means over data sets and seeds as text, with the deviation of the seeds' means.

    A cell is empty where a run of the trainer lacks the figure.
    """
    by_seed = rows.groupby(["trainer", "seed"], sort=False)[names].mean()
    by_seed = by_seed.groupby("trainer", sort=False)
    summary = by_seed.mean().join(by_seed.std(ddof=SAMPLE).add_suffix("_std"))
    lacking = rows[names].isna().groupby(rows["trainer"]).any()
    table = pd.DataFrame(index=summary.index)
    for name in names:
        cells = with_deviation(summary, name, digits=3 if name.startswith("nll") else 2)
        table[name.replace("_", " ")] = cells.mask(lacking[name], "")
    return table


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Write a row for each trainer, data set and seed, and the folder of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digits = dict.fromkeys(SCORES, 2) | dict.fromkeys(CALIBRATION, 4)
    csv_frame(rows[[*COLUMNS, "git", *CALIBRATION]].round(digits)).to_csv(path, index=False)


def print_tables(rows: pd.DataFrame, against: pd.DataFrame, of: str, width: int) -> None:
    """Print accuracies, probabilities, and the differences of the trainer `of`, as Markdown."""
    print(fitted(means(rows), width, OPTIONAL), "\n")
    names = dict.fromkeys(map(trainer_of, (of, *against["minus"])))
    print(wrapped(new_classes_of(names), width), "\n")
    if rows[CALIBRATION].notna().any(axis=None):
        probabilities = seed_means(rows, CALIBRATION).reset_index()
        print(fitted(probabilities, width, OF_PROBABILITIES), "\n")
    print(f"{of} minus the others, difference and 95 % interval:\n")
    print(fitted(against, width, OPTIONAL))


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables as Markdown; write the rows."""
    parser = parser_of(__doc__)
    parser.add_argument("root", type=Path, help="folder of the runs")
    parser.add_argument("--of", default="Spotlighter", help="trainer to compare with all others")
    parser.add_argument("--csv", type=Path, help="write a row for each trainer, data set and seed")
    parser.add_argument("--order", choices=ORDERS, default="best", help=f"of rows: {IN_WORDS}")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="of the bootstrap (2000)")
    add_wide(parser)
    args = parser.parse_args(argv)
    trainers = in_order(read_trainers(args.root), args.order)
    if args.of not in trainers:
        names = ", ".join(trainers)
        raise ValueError(f"no trainer {args.of} below {args.root}; there are {names} (--of)")
    rows = pd.concat(trainers.values())
    ours = trainers.pop(args.of)
    against = [{"minus": name} | compare(ours, r, args.resamples) for name, r in trainers.items()]
    if args.csv:
        write_rows(args.csv, rows)
    columns = None if against else ["minus", *SCORES]
    print_tables(rows, pd.DataFrame(against, columns=columns), args.of, room(wide=args.wide))
    baselines = [name for name in trainers if name in ("ZeroshotCLIP", "CoOp")]
    if baselines:
        new = rows.pivot_table(index="dataset", columns="trainer", values="new")
        gap = (new[args.of] - new[baselines].max(axis=1)).dropna()
        worst = f"{gap.idxmin()} {gap.min():+.2f}"
        print(f"\nNew classes, least against the better of {' and '.join(baselines)}: {worst}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
