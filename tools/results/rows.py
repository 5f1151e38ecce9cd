"""Turn runs into rows: one for each seed, one for each group with mean and deviation, averages.

HM is given both ways: `hm`, of the means of base and new, and `hm_mean`, the mean of HMs.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tools.results.read import (
    CALIBRATION,
    CLASSES,
    EFFORT,
    GROUP,
    KEY,
    MEASURES,
    NO_KEYS,
    read_runs,
)
from tools.sweeps.names import default_rows

SCORES = [*CLASSES, "hm"]  # percent
COLUMNS = ["source", "trainer", "dataset", "config", "settings", "shots", "seed", *SCORES, *EFFORT]
COLUMNS += CALIBRATION
AVERAGE = "average"
ORDERS = ("best", "listed")  # of rows in a table; see `order_rows`
IN_WORDS = "best by HM or accuracy first (best), or as configs/trainers/defaults.yaml (listed)"
# Standard deviations over seeds are those of a sample (n - 1); parse_test_res.py alone prints that
# of a population (n), as CoOp's script does.
SAMPLE, POPULATION = 1, 0
# Runs that agree in these columns are told apart by these settings; None: by all others.
GROUPS: dict[tuple[str, ...], tuple[str, ...] | None] = {
    ("trainer", "config"): None,
    ("trainer", "config", "source", "dataset"): ("data",),
    ("source", "dataset"): ("data",),  # where it is known; logs of other projects lack it
}


def shots_in_order(shots: pd.Series) -> pd.Series:
    """Return numbers of shots that sort: all pictures (below 0) are the most."""
    return shots.where(shots >= 0, np.iinfo(np.int64).max)


class Section(NamedTuple):
    """The rows of one protocol, one for each seed, and the columns of its scores."""

    title: str
    scores: tuple[str, ...]
    rows: pd.DataFrame


def harmonic_mean(base: Any, new: Any) -> Any:
    """Return 2 / (1/base + 1/new); 0 where one is 0."""
    total = base + new
    return np.where(total > 0, 2 * base * new / np.where(total > 0, total, 1), total)


def load_runs(root: Path) -> list[dict[str, Any]]:
    """Return all runs below a folder as tables need them: settings in words, each run once."""
    return drop_repeats(name_settings(read_runs(root)))


def name_settings(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs with those settings in words that differ in GROUPS, as "CSC True, N_CTX 16".

    It is "" where none differ; settings that are words already stay.
    """
    runs = list(runs)
    known = [run.get("settings") or {} for run in runs]
    words: list[dict[str, str]] = [{} for _ in runs]
    for columns, only in GROUPS.items():
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, run in enumerate(runs):
            if isinstance(known[i], dict) and ("trainer" in columns or known[i].get("data")):
                groups.setdefault(tuple(run.get(name) for name in columns), []).append(i)
        for members in groups.values():
            for key, column in differing([known[i] for i in members], only).items():
                for i, value in zip(members, column, strict=True):
                    words[i][key] = value
    texts = [", ".join(map(" ".join, pairs.items())) for pairs in words]
    rows = zip(runs, known, texts, strict=True)
    return [run | {"settings": own if isinstance(own, str) else text} for run, own, text in rows]


def differing(known: list[dict[str, Any]], only: Sequence[str] | None) -> dict[str, list[str]]:
    """Return the settings in which some runs differ, by short name: a value for each run.

    They are looked for in `only`, or in all settings that GROUPS does not name.
    """
    named = {key for keys in GROUPS.values() for key in keys or ()}
    columns: dict[str, list[str]] = {}
    for key in only or sorted({key for one in known for key in one} - named):
        column = [in_words(one, key) for one in known]
        if len(set(column)) > 1:
            columns[key] = column
    short = [key.rpartition(".")[2] for key in columns]
    pairs = zip(short, columns.items(), strict=True)
    return {last if short.count(last) == 1 else key: column for last, (key, column) in pairs}


def in_words(settings: dict[str, Any], key: str) -> str:
    """Return a setting, or its default where it is missing, on one line."""
    value = settings.get(key, NO_KEYS.get(key))
    if key not in settings and key not in NO_KEYS:
        import trainers  # noqa: F401  (registers the trainers, with their keys)
        from runs.identity import default_settings

        value = default_settings().get(key)
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
        head = f"{len(lines)} of {len(runs)} runs share settings and seed with another; only the "
        print(f"{head}last one (by path) is in the table:", *lines, sep="\n", file=sys.stderr)
    return list(last.values())


def pair_runs(runs: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for all that KEY names, with COLUMNS.

    images_per_s is the mean of its runs; train_s is that of the run which trained.
    """
    numbers = ["accuracy", *MEASURES, *EFFORT]
    frame = pd.DataFrame(name_settings(runs)).reindex(columns=[*KEY, "classes", *numbers])
    frame = frame.astype(dict.fromkeys(numbers, float))
    by_classes = {
        name: frame.pivot(index=KEY, columns="classes", values=name).reindex(columns=CLASSES)
        for name in ("accuracy", *MEASURES)
    }
    rows = by_classes.pop("accuracy")
    rows["hm"] = harmonic_mean(rows["base"], rows["new"])
    for name, part in by_classes.items():
        rows = rows.join(part.add_prefix(f"{name}_"))
    groups = frame.groupby(KEY)
    rows["images_per_s"] = groups["images_per_s"].mean()
    rows["train_s"] = groups["train_s"].max()
    rows["learned_parameters"] = groups["learned_parameters"].max().astype("Int64")
    return rows.reset_index()[COLUMNS]


def split_sections(rows: pd.DataFrame) -> list[Section]:
    """Return rows by protocol, in the order of the literature, without empty protocols."""
    own = rows["source"] == rows["dataset"]
    pairs = own & rows[["base", "new"]].notna().any(axis=1)
    found = [Section("Base to new", ("base", "new", "hm"), rows[pairs])]
    found.append(Section("All classes", ("all",), rows[own & rows["all"].notna()]))
    names = zip(rows["source"].str.lower(), rows["dataset"].str.lower(), strict=True)
    is_longer = [name.startswith(source) for source, name in names]  # as ImageNetV2
    shift = ~own & pd.Series(is_longer, rows.index, dtype=bool)
    for title, chosen in (("Cross-dataset", ~own & ~shift), ("Domain shift", shift)):
        for source, part in rows[chosen].groupby("source"):
            found.append(Section(f"{title}, trained on {source}", ("all",), part))
    return [section for section in found if len(section.rows)]


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each group: means over `seeds` seeds, and deviations as base_std.

    One seed has no deviation; a seed without a score is left out of that score's mean.
    """
    groups = rows.groupby(GROUP)
    summary = groups[[*CLASSES, *EFFORT, *CALIBRATION]].mean()
    summary["hm"] = harmonic_mean(summary["base"], summary["new"])
    summary["hm_mean"] = groups["hm"].mean()
    columns = [*SCORES, *CALIBRATION]
    for name, column in zip([*CLASSES, "hm_mean", *CALIBRATION], columns, strict=True):
        summary[f"{name}_std"] = groups[column].std(ddof=SAMPLE)
    summary["seeds"] = groups.size()
    return summary.reset_index()


def average_datasets(summary: pd.DataFrame) -> pd.DataFrame:
    """Return means over the data sets, missing where a trainer lacks one of the table's."""
    scores = [*CLASSES, "hm_mean", *CALIBRATION]
    groups = summary.groupby([name for name in GROUP if name not in ("source", "dataset")])
    average = groups[[*scores, *EFFORT]].mean()
    average[scores] = average[scores].where(groups[scores].count() == summary["dataset"].nunique())
    average["hm"] = harmonic_mean(average["base"], average["new"])
    average["seeds"] = groups["seeds"].min()
    return average.reset_index().assign(dataset=AVERAGE, source=AVERAGE)


def with_average(section: Section) -> pd.DataFrame:
    """Return the summary of a section, with averages where it has several data sets."""
    others = [
        name
        for classes in CLASSES
        if classes not in section.scores
        for name in (classes, *(f"{measure}_{classes}" for measure in MEASURES))
    ]
    summary = summarise(section.rows.assign(**dict.fromkeys(others, float("nan"))))
    if summary["dataset"].nunique() > 1:
        summary = pd.concat([summary, average_datasets(summary)], ignore_index=True)
    return summary


def order_rows(rows: pd.DataFrame, order: str = "listed") -> pd.DataFrame:
    """Sort by data set, the average last, then by one of ORDERS.

    `listed`: by trainer as `trainer_rank` says. `best`: by HM, or accuracy where there is none, at
    the most shots of a label, downwards; equal ones, and those without it at the end, as listed.
    """

    def rank(column: pd.Series) -> pd.Series:
        if column.name == "dataset":
            return column.map(lambda name: (name == AVERAGE, name))
        if column.name == "shots":
            return shots_in_order(column)
        return column.map(trainer_rank) if column.name == "trainer" else column

    score: Any = 0.0
    if order == "best":
        scored = rows.assign(score=rows["hm"].fillna(rows["all"]), label=labels(rows))
        scored = scored.sort_values("shots", key=shots_in_order)
        score = scored.groupby(["source", "dataset", "label"])["score"].transform("last")
    columns = ["dataset", "score", *GROUP[2:], GROUP[0]]
    downwards = [name != "score" for name in columns]
    options = {"key": rank, "ascending": downwards, "ignore_index": True}
    return rows.assign(score=score).sort_values(columns, **options).drop(columns="score")


def labels(summary: pd.DataFrame) -> pd.Series:
    """Return the trainer of each row, with its config and settings where several are compared."""
    trainer = summary["trainer"]
    configs = summary.groupby(["trainer", "dataset", "shots"])["config"].nunique()
    several = configs[configs > 1].index.get_level_values("trainer")
    label = trainer.where(~trainer.isin(several), trainer + ": " + summary["config"])
    return label + (", " + summary["settings"]).where(summary["settings"] != "", "")


def trainer_rank(name: str) -> tuple[int, str]:
    """Return the place of a trainer in a list: as in defaults.yaml, others after."""
    order, plain = list(default_rows()), name.split(",")[0]
    return (order.index(plain) if plain in order else len(order), name)
