"""Read the other files of a run: config, confusion, training curves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tools.results.read import read_predictions

WORST = 10  # classes in a confusion matrix


class Evidence(NamedTuple):
    """A run, its results and config as written."""

    folder: Path
    record: dict[str, Any]  # without the class names
    config: str
    settings: str  # what tells it from others of its trainer and config, in words


def read_evidence(run: Mapping[str, Any]) -> Evidence:
    """Add its config to a run of `read_results`; "none" if it is missing."""
    path = Path(run["path"]) / "config.yaml"
    config = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "none"
    return Evidence(path.parent, run["record"], config, run["settings"])


def config_keys(config: str) -> dict[str, str]:
    """Return the values of a config as written, by dotted key; much faster than parsing YAML."""
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


def short_configs(runs: Sequence[Evidence]) -> list[str]:
    """Return the config of each run: of the first of a trainer whole, else what differs from it."""
    firsts: dict[str, tuple[Evidence, dict[str, str]]] = {}
    texts = []
    for run in runs:
        keys = config_keys(run.config)
        first, others = firsts.setdefault(run.record["trainer"], (run, keys))
        if first is run or not keys:
            texts.append(run.config)
            continue
        differ = [key for key in {**others, **keys} if keys.get(key) != others.get(key)]
        lines = [f"{key}: {keys.get(key, '(is not there)')}" for key in differ]
        texts.append("\n".join([f"# as the config of {first.folder}, but for:", *lines]))
    return texts


def worst_confusions(runs: Iterable[Evidence]) -> pd.DataFrame | None:
    """Return what the WORST classes of some runs were taken for, in percent, or None.

    Columns are these classes, and at most as many others. All runs have the same classes.
    """
    found = []
    for run in runs:
        record = json.loads((run.folder / "results.json").read_text(encoding="utf-8"))
        names = record.get("class_names")
        if names and (run.folder / "predictions.csv").is_file():
            pairs = read_predictions(run.folder, len(names))
            found.append(pairs.map(list(names).__getitem__).astype(str))
    if not found:
        return None
    pairs = pd.concat(found)
    shares = 100 * pd.crosstab(pairs["label"], pairs["predicted"], normalize="index")
    right = pd.Series({name: shares.get(name, {}).get(name, 0.0) for name in shares.index})
    rows = shares.loc[right.sort_values(kind="stable").index[:WORST]]
    wrong = rows.drop(columns=rows.index, errors="ignore").max().sort_values(ascending=False)
    columns = [*(name for name in rows.index if name in rows), *wrong[wrong >= 5].index[:WORST]]
    return rows[columns]


def training_curve(folder: Path, epochs: int) -> pd.DataFrame | None:
    """Return a run's mean loss and batch accuracy (acc) by epoch, or None, from TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = (folder / "tensorboard").glob("events*")
    if not isinstance(epochs, int) or epochs < 1 or not any(files):
        return None
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    if not {"train/loss", "train/acc"} <= set(events.Tags()["scalars"]):
        return None
    scalars = {name: events.Scalars(f"train/{name}") for name in ("loss", "acc")}
    curve = pd.DataFrame({n: {e.step: e.value for e in found} for n, found in scalars.items()})
    steps = (curve.index.max() + 1) / epochs  # of an epoch
    epoch = (curve.index // steps).astype(int) + 1
    return curve.groupby(epoch).mean().rename_axis("epoch").reset_index()
