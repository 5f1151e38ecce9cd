"""What a run's folder holds beside its results: config, confusion, training curves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

PREDICTIONS = "predictions.csv"
WORST = 10  # classes in a confusion matrix


class Evidence(NamedTuple):
    """A run, its results as written, and its config."""

    folder: Path
    record: dict[str, Any]
    """Without the class names."""
    config: str
    settings: str
    """What tells the run from others of its trainer and config, in words."""

    @property
    def versions(self) -> str:
        """Packages and their versions, on one line."""
        return ", ".join(f"{k} {v}" for k, v in self.record.get("versions", {}).items())


def read_evidence(run: Mapping[str, Any]) -> Evidence:
    """Add its config to a run of `read_results`; one that is missing is said to be so."""
    path = Path(run["folder"]) / "config.yaml"
    config = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "none"
    return Evidence(path.parent, run["record"], config, run["settings"])


def config_keys(config: str) -> dict[str, str]:
    """Values of a config as it is written, by dotted key; lines of a list belong to its key."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []  # indentation and name of the keys around a line
    for line in config.splitlines():
        name, colon, value = line.partition(":")
        if not colon or line.lstrip().startswith(("-", "#")):
            if found:
                found[last] = f"{found[last]} {line.strip()}".lstrip()
            continue
        indentation = len(name) - len(name.lstrip())
        while above and above[-1][0] >= indentation:
            above.pop()
        above.append((indentation, name.strip()))
        last = ".".join(word for _, word in above)
        found[last] = value.strip()
    return found


def told_configs(runs: Sequence[Evidence]) -> list[str]:
    """Of each run its config: whole for the first of a trainer, and how the others differ from it.

    So a page of thousands of runs stays small.
    """
    firsts: dict[str, tuple[Evidence, dict[str, str]]] = {}
    told = []
    for run in runs:
        keys = config_keys(run.config)
        first, others = firsts.setdefault(run.record["trainer"], (run, keys))
        if first is run or not keys:
            told.append(run.config)
            continue
        lines = [
            f"{key}: {keys.get(key, '(is not there)')}"
            for key in {**others, **keys}
            if keys.get(key) != others.get(key)
        ]
        told.append("\n".join([f"# as the config of {first.folder}, but for:", *lines]))
    return told


def worst_confusions(runs: Iterable[Evidence]) -> pd.DataFrame | None:
    """Of the classes that are recognised worst, the shares in percent taken for which class.

    Args:
        runs: on the same classes, as of several seeds; their pictures are added.

    Returns:
        (WORST true classes, at most 2 WORST predicted classes: these, and what they are taken for
        most); None where no run left its predictions.
    """
    found = []
    for run in runs:
        record = json.loads((run.folder / "results.json").read_text(encoding="utf-8"))
        names = record.get("class_names")
        if (run.folder / PREDICTIONS).is_file() and names:
            found.append(read_predictions(run.folder / PREDICTIONS, names))
    if not found:
        return None
    pairs = pd.concat(found)
    shares = 100 * pd.crosstab(pairs["label"], pairs["predicted"], normalize="index")
    right = pd.Series({name: shares.get(name, {}).get(name, 0.0) for name in shares.index})
    rows = shares.loc[right.sort_values(kind="stable").index[:WORST]]
    wrong = rows.drop(columns=rows.index, errors="ignore").max().sort_values(ascending=False)
    columns = [*(name for name in rows.index if name in rows), *wrong[wrong >= 5].index[:WORST]]
    return rows[columns]


def read_predictions(path: Path, names: Sequence[str]) -> pd.DataFrame:
    """Names of the true and of the predicted class of each picture.

    Raises:
        ValueError: the file holds no labels of these classes.
    """
    try:
        pairs = pd.read_csv(path, usecols=["label", "predicted"], dtype=int)
        if not pairs.isin(range(len(names))).all(axis=None):
            raise ValueError(f"labels beyond the {len(names)} classes")
        return pairs.map(list(names).__getitem__).astype(str)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} does not say what was predicted: {error}") from error


def training_curve(folder: Path, epochs: int) -> pd.DataFrame | None:
    """Loss and batch accuracy of each epoch, as TensorBoard was told; None if it was told nothing.

    Args:
        folder: of a run.
        epochs: that it trained.

    Returns:
        Columns epoch (from 1), loss and acc, the means over the steps of an epoch.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if (
        not isinstance(epochs, int)
        or epochs < 1
        or not any((folder / "tensorboard").glob("events*"))
    ):
        return None
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    if not {"train/loss", "train/acc"} <= set(events.Tags()["scalars"]):
        return None
    curve = pd.DataFrame(
        {
            name: {event.step: event.value for event in events.Scalars(f"train/{name}")}
            for name in ("loss", "acc")
        }
    )
    steps = (curve.index.max() + 1) / epochs  # of an epoch
    return (
        curve.groupby((curve.index // steps).astype(int) + 1)
        .mean()
        .rename_axis("epoch")
        .reset_index()
    )
