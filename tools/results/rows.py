"""From runs to rows: one a seed, one a group with mean and spread, one an average.

HM is given both ways: `hm`, of the means of base and new, and `hm_mean`, the mean of HMs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tools.results.read import BESIDE, CLASSES, EFFORT, GROUP, KEY, read_runs

SCORES = [*CLASSES, "hm"]  # percent
COLUMNS = ["source", "trainer", "dataset", "config", "settings", "shots", "seed"]
COLUMNS += [*SCORES, *EFFORT]
AVERAGE = "average"
# Runs that agree in these columns are told apart by these settings; None: by all others.
GROUPS_THAT_NAME: dict[tuple[str, ...], tuple[str, ...] | None] = {
    ("trainer", "config"): None,
    ("trainer", "config", "source", "dataset"): ("data",),
    ("source", "dataset"): ("data",),  # where it is known; logs of other projects lack it
}
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


def load_runs(root: Path) -> list[dict[str, Any]]:
    """All runs below a folder as tables need them: settings in words, each run once."""
    return drop_repeats(name_settings(read_runs(root)))


def name_settings(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs with `settings` in words, "N_CTX 16, CSC True"; "" where none differ.

    Named are those that differ between runs of one trainer and config; a digest of the data is
    named where it differs between runs on one data set.
    """
    runs = list(runs)
    known = [run.get("settings") or {} for run in runs]
    words: list[dict[str, str]] = [{} for _ in runs]
    for columns, keys in GROUPS_THAT_NAME.items():
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, run in enumerate(runs):
            own = known[i]  # in words already, or by name
            if not isinstance(own, str) and ("trainer" in columns or own.get("data")):
                groups.setdefault(tuple(run.get(name) for name in columns), []).append(i)
        for members in groups.values():
            found = differing([known[i] for i in members], keys)
            for i, differ in zip(members, found, strict=True):
                words[i] |= differ
    texts = [
        own if isinstance(own, str) else ", ".join(" ".join(pair) for pair in named.items())
        for own, named in zip(known, words, strict=True)
    ]
    return [run | {"settings": text} for run, text in zip(runs, texts, strict=True)]


def differing(known: list[dict[str, Any]], only: Sequence[str] | None) -> list[dict[str, str]]:
    """For each of some runs, its values of the settings in which they differ, by short name.

    Args:
        known: settings by full name; what is missing has its default.
        only: these settings; None: all others than those named in GROUPS_THAT_NAME.
    """
    named = [key for keys in GROUPS_THAT_NAME.values() for key in keys or ()]
    candidates = only or sorted({key for one in known for key in one} - set(named))
    values: dict[str, list[str]] = {}
    for key in candidates:
        given = [key in one for one in known]
        usual = None if all(given) else default_of(key)
        column = [in_words(one.get(key, usual)) for one in known]
        if len(set(column)) > 1:
            values[key] = column
    lasts = [key.rpartition(".")[2] for key in values]
    short = [
        last if lasts.count(last) == 1 else key for key, last in zip(values, lasts, strict=True)
    ]
    rows = zip(*values.values(), strict=True) if values else [()] * len(known)
    return [dict(zip(short, row, strict=True)) for row in rows]


def default_of(key: str) -> Any:
    """The value of a setting that a run does not name."""
    if key in BESIDE:
        return BESIDE[key]
    from runs.identity import default_settings

    return default_settings().get(key)


def in_words(value: Any) -> str:
    """A setting's value on one line."""
    if isinstance(value, str):
        return value if value and value.isprintable() else repr(value)
    return "unknown" if value is None else repr(value)


def drop_repeats(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the last of runs that agree in everything that identifies a run; name the others."""
    last: dict[tuple[Any, ...], dict[str, Any]] = {}
    lines = []
    for run in runs:
        identity = tuple(run.get(name) for name in (*KEY, "classes"))
        if (before := last.get(identity)) is not None:
            first, second = (f"{one['path']} ({one['accuracy']:.2f})" for one in (before, run))
            lines.append(f"  {second} counts, not {first}")
        last[identity] = run
    if lines:
        print(
            f"{len(lines)} of {len(runs)} runs share settings and seed with another; only the "
            "last one (by path) is in the table:",
            *lines,
            sep="\n",
            file=sys.stderr,
        )
    return list(last.values())


def pair_runs(runs: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for all that KEY names, with COLUMNS.

    images_per_s is the mean over the runs of a row.
    """
    frame = pd.DataFrame(name_settings(runs)).reindex(
        columns=[*KEY, "classes", "accuracy", *EFFORT]
    )
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
