"""From runs to rows: one a seed, one a group with mean and spread, one an average.

HM is given both ways: `hm`, of the means of base and new, and `hm_mean`, the mean of HMs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tools.run_results import CLASSES, EFFORT, GROUP, KEY

SCORES = [*CLASSES, "hm"]  # percent
COLUMNS = ["source", "trainer", "dataset", "config", "shots", "seed", *SCORES, *EFFORT]
AVERAGE = "average"
# In the order of the literature's tables; others follow.
TRAINERS = [
    *("ZeroshotCLIP", "ZeroshotCLIP2", "CoOp", "CoCoOp", "VPT", "IVLP", "MaPLe", "PromptSRC"),
    "PromptKD",
]


class Section(NamedTuple):
    """The rows of one protocol."""

    title: str
    scores: tuple[str, ...]
    """Columns that belong to it."""
    rows: pd.DataFrame
    """One a seed."""


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
    """Return one row for all that KEY names, with COLUMNS.

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


def is_shift(source: str, target: str) -> bool:
    """Whether a data set shows its source's classes in another way.

    Its name then begins with the source's: ImageNetV2, EmojiFoodLineart.
    """
    return target != source and target.lower().startswith(source.lower())


def split_sections(rows: pd.DataFrame) -> list[Section]:
    """Rows by protocol, in the order of the literature; a protocol without rows is left out."""
    own = rows["source"] == rows["dataset"]
    pairs = own & rows[["base", "new"]].notna().any(axis=1)
    found = [
        Section("Base to new", ("base", "new", "hm"), rows[pairs]),
        Section("All classes", ("all",), rows[own & rows["all"].notna()]),
    ]
    shift = rows.apply(lambda row: is_shift(row["source"], row["dataset"]), axis=1).astype(bool)
    for title, chosen in (("Cross-dataset", ~own & ~shift), ("Domain shift", shift)):
        for source, part in rows[chosen].groupby("source"):
            found.append(Section(f"{title}, trained on {source}", ("all",), part))
    return [section for section in found if len(section.rows)]


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row a group: means over seeds, and the standard deviation as e.g. base_std.

    One seed has no standard deviation; a seed without a score is left out of that score's mean.
    `seeds` is the number of seeds.
    """
    groups = rows.groupby(GROUP)
    summary = groups[[*CLASSES, *EFFORT]].mean()
    summary["hm"] = harmonic_mean(summary["base"], summary["new"])
    summary["hm_mean"] = groups["hm"].mean()
    for column in CLASSES:
        summary[f"{column}_std"] = groups[column].std(ddof=1)
    summary["hm_mean_std"] = groups["hm"].std(ddof=1)
    summary["seeds"] = groups.size()
    return summary.reset_index()


def average_datasets(summary: pd.DataFrame) -> pd.DataFrame:
    """Return one row a trainer: means over the data sets.

    A score is missing where the trainer lacks it on one of the table's data sets.
    """
    scores = [*CLASSES, "hm_mean"]
    wanted = summary["dataset"].nunique()
    groups = summary.groupby([name for name in GROUP if name not in ("source", "dataset")])
    average = groups[[*scores, *EFFORT]].mean()
    average[scores] = average[scores].where(groups[scores].count() == wanted)
    average["hm"] = harmonic_mean(average["base"], average["new"])
    average["seeds"] = groups["seeds"].min()
    return average.reset_index().assign(dataset=AVERAGE, source=AVERAGE)


def with_average(section: Section) -> pd.DataFrame:
    """The summary of a section, sorted; with averages where it has several data sets."""
    others = [name for name in CLASSES if name not in section.scores]
    summary = summarise(section.rows.assign(**dict.fromkeys(others, float("nan"))))
    if summary["dataset"].nunique() > 1:
        summary = pd.concat([summary, average_datasets(summary)])
    return order_rows(summary)


def order_rows(summary: pd.DataFrame) -> pd.DataFrame:
    """Sort by data set (the average last), then by trainer as in TRAINERS; published ones after."""

    def rank(column: pd.Series) -> pd.Series:
        if column.name == "dataset":
            return column.map(lambda name: (name == AVERAGE, name))
        if column.name == "trainer":
            return column.map(trainer_rank)
        return column

    return summary.sort_values([*GROUP[1:], GROUP[0]], key=rank, ignore_index=True)


def trainer_rank(name: str) -> tuple[int, str]:
    """Where a trainer stands in a table."""
    plain = name.split(",")[0]
    return (TRAINERS.index(plain) if plain in TRAINERS else len(TRAINERS), name)
