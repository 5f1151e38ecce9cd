"""Read the other files of a run: config, confusion, training curves."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tools.results.read import read_predictions

WORST = 10  # classes in a confusion matrix, where there are more than WHOLE
WHOLE = 20


def read_config(folder: Path) -> str:
    """Return the config of a run as written, "none" if it is missing."""
    path = folder / "config.yaml"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "none"


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


def short_configs(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the config of each run: of the first of a trainer whole, else what differs from it."""
    firsts: dict[str, tuple[str, dict[str, str]]] = {}
    texts = []
    for run in runs:
        text = read_config(Path(run["path"]))
        keys = config_keys(text)
        first, others = firsts.setdefault(run["trainer"], (run["path"], keys))
        if others is not keys and keys:
            differ = [key for key in {**others, **keys} if keys.get(key) != others.get(key)]
            lines = [f"{key}: {keys.get(key, '(is not there)')}" for key in differ]
            text = "\n".join([f"# as the config of {first}, but for:", *lines])
        texts.append(text)
    return texts


def named_predictions(folders: Iterable[Path]) -> pd.DataFrame | None:
    """Return true and predicted class names (label, predicted) of all pictures of some runs.

    None where no run says them. All runs have the same classes.
    """
    found = []
    for folder in folders:
        names = json.loads((folder / "results.json").read_text("utf-8")).get("class_names")
        if names and (folder / "predictions.csv").is_file():
            pairs = read_predictions(folder, len(names))
            found.append(pairs.map(list(names).__getitem__).astype(str))
    return pd.concat(found) if found else None


def class_accuracies(folders: Iterable[Path]) -> pd.DataFrame | None:
    """Return number of pictures and accuracy in percent of each class, over some runs, or None."""
    pairs = named_predictions(folders)
    if pairs is None:
        return None
    right = (pairs["label"] == pairs["predicted"]).groupby(pairs["label"])
    return pd.DataFrame({"pictures": right.size(), "accuracy": 100 * right.mean()})


def confusions(folders: Iterable[Path]) -> pd.DataFrame | None:
    """Return what the classes of some runs were taken for, in percent, or None.

    Of more than WHOLE classes these are the WORST. Columns are these classes, and of others at
    most WORST.
    """
    pairs = named_predictions(folders)
    if pairs is None:
        return None
    shares = 100 * pd.crosstab(pairs["label"], pairs["predicted"], normalize="index")
    right = pd.Series({name: shares.get(name, {}).get(name, 0.0) for name in shares.index})
    worst = right.sort_values(kind="stable").index[:WORST]
    rows = shares.loc[worst if len(right) > WHOLE else right.index]
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
