"""Trainers compared picture by picture: differences of means, with what chance could make of them.

Usage:
    python tools/compare_trainers.py output/emoji --of Spotlighter --csv docs/results/x.csv

Reads results.json and predictions.csv of base-to-new runs (scripts/compare.sh leaves both). All
trainers saw the same test pictures, so that differences are taken picture by picture, on the data
sets and seeds that both were run on; runs on other pictures are refused. Runs of other settings are
trainers of their own. Intervals
hold 95 % of a bootstrap over seeds and pictures (scipy.stats.bootstrap); the harmonic mean is taken
for each data set and seed, then averaged.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/compare_trainers.py`
from tools.results.cells import csv_frame, markdown_table
from tools.results.read import KEY
from tools.results.rows import harmonic_mean, load_runs
from tools.shared.command_line import parser_of, reports_user_errors

HALVES = ("base", "new")
COLUMNS = ["trainer", "dataset", "seed", "base", "new", "hm", "images_per_s", "learned_parameters"]
SUFFIX = "tiny_emoji_"  # what follows it in a config's name is part of the trainer's name here
SCORES = ("base", "new", "hm")


class Runs(NamedTuple):
    """All runs of one trainer."""

    rows: pd.DataFrame
    """A row a data set and seed, `COLUMNS` and git."""
    right: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]
    """By data set and seed: whether each picture was right, base and new."""
    tested: dict[tuple[str, int], tuple[object, ...]]
    """By data set and seed: what the pictures were, as digest of the data and labels."""

    def stacked(self, sets: list[str], seeds: list[int]) -> dict[str, np.ndarray]:
        """Whether each picture was right, (data sets, seeds, pictures), for base and new."""
        return {
            half: np.stack([[self.right[one, seed][i] for seed in seeds] for one in sets])
            for i, half in enumerate(HALVES)
        }


def read_row(name: str, base: dict[str, Any], new: dict[str, Any]) -> dict[str, object]:
    """One row from both halves of a run."""
    return {
        "trainer": name,
        "dataset": base["dataset"],
        "seed": base["seed"],
        "base": base["accuracy"],
        "new": new["accuracy"],
        "hm": float(harmonic_mean(base["accuracy"], new["accuracy"])),
        "images_per_s": (base["images_per_s"] + new["images_per_s"]) / 2,
        "learned_parameters": base["learned_parameters"],
        "git": base["git"],
    }


def name_of(run: dict[str, Any], *, with_shots: bool) -> str:
    """A trainer, with what tells its runs from others of it: config, settings, shots."""
    config = run["config"].removeprefix(SUFFIX)
    name = run["trainer"] + (f"-{config}" if config != run["config"] else "")
    shots = f"{run['shots']} shots" if with_shots else ""
    return ", ".join(filter(None, (name, run["settings"], shots)))


class Pictures(NamedTuple):
    """The pictures of a run."""

    right: np.ndarray
    """Whether each was right."""
    labels: bytes
    """The label of each, packed."""


def pictures(folder: Path) -> Pictures:
    """The pictures of a run."""
    pairs = pd.read_csv(folder / "predictions.csv")
    return Pictures((pairs.label == pairs.predicted).to_numpy(), pairs.label.to_numpy().tobytes())


def read_trainers(root: Path) -> dict[str, Runs]:
    """All trainers below a folder; runs without their half on new classes are left out.

    Raises:
        ValueError: there is no finished run, or two configs have one name here.
    """
    runs = [run for run in load_runs(root) if run.get("folder") and run["source"] == run["dataset"]]
    several = len({run["shots"] for run in runs if run["classes"] in HALVES}) > 1
    halves = {half: [run for run in runs if run["classes"] == half] for half in HALVES}
    new = {tuple(run[key] for key in KEY): run for run in halves["new"]}
    rows: dict[str, list[dict[str, object]]] = {}
    found: dict[str, dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]] = {}
    tested: dict[str, dict[tuple[str, int], tuple[object, ...]]] = {}
    for run in halves["base"]:
        other = new.get(tuple(run[key] for key in KEY))
        if other is None:
            continue
        name, cell = name_of(run, with_shots=several), (run["dataset"], run["seed"])
        if cell in found.setdefault(name, {}):
            raise ValueError(f"two runs of {name} on {cell[0]}, seed {cell[1]}, as {run['folder']}")
        rows.setdefault(name, []).append(read_row(name, run, other))
        first, second = pictures(Path(run["folder"])), pictures(Path(other["folder"]))
        found[name][cell] = first.right, second.right
        known = (run["data"], other["data"], first.labels, second.labels)
        tested.setdefault(name, {})[cell] = known
    if not rows:
        raise ValueError(f"no finished base-to-new run below {root}; scripts/compare.sh makes some")
    return {name: Runs(pd.DataFrame(rows[name]), found[name], tested[name]) for name in rows}


def alike(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Whether what is known of the pictures of two runs is the same."""
    return all(a == b or None in (a, b) for a, b in zip(one, other, strict=True))


def common(ours: Runs, other: Runs) -> tuple[list[str], list[int]]:
    """The data sets of both trainers, and the seeds that both have on all of them.

    Raises:
        ValueError: they were tested on other pictures.
    """
    cells = ours.right.keys() & other.right.keys()
    if apart := sorted(c for c in cells if not alike(ours.tested[c], other.tested[c])):
        names = " and ".join(runs.rows.trainer.iloc[0] for runs in (ours, other))
        raise ValueError(
            f"{names} were tested on other pictures of {apart[0][0]}, seed {apart[0][1]}, so they "
            "cannot be compared picture by picture; choose a folder with runs on the same data"
        )
    sets = sorted({one for one, _ in cells})
    seeds = {seed for _, seed in cells}
    return sets, sorted(s for s in seeds if all((one, s) in cells for one in sets))


def score(
    correct: dict[str, np.ndarray], seeds: np.ndarray, drawn: dict[str, np.ndarray]
) -> np.ndarray:
    """Base, new and harmonic mean in percent over data sets, seeds and pictures as drawn."""
    means = {}
    for half, hits in correct.items():
        times = np.bincount(drawn[half], minlength=hits.shape[-1])
        means[half] = 100 * (hits @ times)[:, seeds] / len(drawn[half])  # (data sets, seeds)
    hm = harmonic_mean(means["base"], means["new"])
    return np.array([means["base"].mean(), means["new"].mean(), hm.mean()])


def compare(ours: Runs, other: Runs, resamples: int) -> dict[str, object]:
    """Mean difference and its interval for base, new and harmonic mean."""
    sets, seeds = common(ours, other)
    if not seeds:
        return {"data sets": len(sets), "seeds": 0}
    try:
        hits = [runs.stacked(sets, seeds) for runs in (ours, other)]
    except ValueError as error:
        raise ValueError(
            f"{', '.join(sets)} have different numbers of test pictures, so that no picture can be "
            "drawn from all at once; compare them one at a time, --datasets"
        ) from error

    def difference(seed: np.ndarray, base: np.ndarray, new: np.ndarray) -> np.ndarray:
        drawn = {"base": base, "new": new}
        return score(hits[0], seed, drawn) - score(hits[1], seed, drawn)

    draws = tuple(np.arange(n) for n in (len(seeds), *(hits[0][h].shape[-1] for h in HALVES)))
    mean = difference(*draws)
    if len(seeds) > 1:
        chosen = {"vectorized": False, "method": "percentile", "n_resamples": resamples, "rng": 0}
        low, high = bootstrap(draws, difference, **chosen).confidence_interval
        interval = [f" [{a:+.2f}, {b:+.2f}]" for a, b in zip(low, high, strict=True)]
    else:  # one seed says nothing of the spread of seeds
        interval = [""] * len(SCORES)
    cells = {name: f"{mean[i]:+.2f}{interval[i]}" for i, name in enumerate(SCORES)}
    return {"data sets": len(sets), "seeds": len(seeds)} | cells


def worst_new(ours: Runs, others: dict[str, Runs]) -> str:
    """The data set on which new classes lose most to the better of the others, by means."""
    new = ours.rows.groupby("dataset").new.mean()
    means = [runs.rows.groupby("dataset").new.mean() for runs in others.values()]
    best = pd.concat(means, axis=1).max(axis=1)
    gap = (new - best).dropna()
    return f"{gap.idxmin()} {gap.min():+.2f}"


def means(trainers: dict[str, Runs]) -> pd.DataFrame:
    """Mean over data sets and seeds, with the standard deviation of the seeds' means."""
    rows = []
    for name, runs in trainers.items():
        by_seed = runs.rows.groupby("seed")[list(SCORES)].mean()
        cells = {c: f"{by_seed[c].mean():.2f} ± {by_seed[c].std(ddof=0):.2f}" for c in SCORES}
        learned = int(runs.rows.learned_parameters.max())
        counts = {"data sets": runs.rows.dataset.nunique(), "seeds": len(by_seed)}
        rows.append({"trainer": name, **counts, **cells, "learned parameters": f"{learned:,}"})
    return pd.DataFrame(rows)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables as Markdown; write the rows."""
    parser = parser_of(__doc__)
    parser.add_argument("root", type=Path, help="folder of the runs")
    parser.add_argument("--of", default="Spotlighter", help="trainer that the others are held to")
    parser.add_argument("--csv", type=Path, help="file for a row a trainer, data set and seed")
    parser.add_argument("--resamples", type=int, default=2000)
    args = parser.parse_args(argv)
    try:
        trainers = read_trainers(args.root)
        if args.of not in trainers:
            raise ValueError(
                f"no trainer {args.of} below {args.root}; there are {', '.join(trainers)}"
            )
        ours = trainers[args.of]
        others = {name: runs for name, runs in trainers.items() if name != args.of}
        against = [
            {"minus": name} | compare(ours, runs, args.resamples) for name, runs in others.items()
        ]
    except (ValueError, OSError, KeyError) as error:
        sys.stderr.write(f"paired: error: {error}\n")
        return 2
    if args.csv:
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        rows = pd.concat(runs.rows for runs in trainers.values())
        csv_frame(rows.round({name: 2 for name in SCORES})).to_csv(args.csv, index=False)
    print(markdown_table(means(trainers)), "\n")
    print(f"{args.of} minus the others, difference and 95 % interval:\n")
    print(markdown_table(pd.DataFrame(against)))
    baselines = {n: r for n, r in others.items() if n in ("ZeroshotCLIP", "CoOp")}
    if baselines:
        worst = worst_new(ours, baselines)
        print(f"\nNew classes, least against the better of {' and '.join(baselines)}: {worst}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
