"""Write results.json, predictions.csv and config.yaml, which tables are made of."""

import csv
import io
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache, reduce
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from yacs.config import CfgNode

from datasets.pictures import shown
from runs.files import sync, write_bytes, write_text

PROJECT = Path(__file__).parent.parent
RESULTS = "results.json"
PREDICTIONS = "predictions.csv"
LOGITS = "logits.npy"
HALVES = ("base", "new")  # folders of their own, where a run on all classes reports both
NUMBERS = re.compile(r"\[\n(?:[\s\d.,eE+-]|null)*\]")  # in JSON with line breaks, a list of them
PACKAGES = ("torch", "torchvision", "dassl", "clip-anytorch")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # beginnings of cells that a spreadsheet would run


class Predicted(NamedTuple):
    """What was predicted for a picture; probabilities are in 0..1."""

    label: int
    predicted: int
    path: str
    probability: float  # of the predicted class
    true_probability: float  # of the picture's own class


@cache
def git_revision() -> str:
    """Short SHA of the project, "-dirty" appended if files differ; "unknown" outside git."""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


@cache
def versions() -> dict[str, str]:
    """Python and the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def changed(cfg: CfgNode, values: dict[str, Any]) -> CfgNode:
    """A frozen copy of a config in which some keys, by full name, have other values."""
    other = cfg.clone()
    other.defrost()
    for key, value in values.items():
        *nodes, last = key.split(".")
        reduce(getattr, nodes, other)[last] = value
    other.freeze()
    return other


def write_config(cfg: CfgNode, directory: str | Path) -> None:
    """The resolved configuration, with the project's revision on its first line."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "config.yaml", f"# git: {git_revision()}\n{cfg.dump()}")


def begin(cfg: CfgNode, directory: str | Path) -> None:
    """Remove earlier results, then write the config: it never stands beside another's results."""
    for folder in map(Path(directory).joinpath, ("", *HALVES)):
        for name in (RESULTS, PREDICTIONS, LOGITS):
            (folder / name).unlink(missing_ok=True)
    sync(Path(directory))  # a machine that stops now keeps this order
    write_config(cfg, directory)


def csv_cell(value: object) -> object:
    """Put an apostrophe before words that a spreadsheet would run; numbers stay."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def write_predictions(
    directory: str | Path, found: Iterable[Predicted], class_names: Sequence[str],
    root: str | Path = "",
) -> None:
    """predictions.csv: a row for every picture, in the order of the split.

    Paths start from `root`, the folder (or the CSV file in the folder) of the data, where they lie
    in it. One that a spreadsheet would run begins with "./".
    """
    path, base = Path(directory) / PREDICTIONS, Path(root).expanduser().absolute()
    start = f"{base.parent if base.is_file() else base}{os.sep}"
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    columns = ("label", "predicted", "path", "true_name", "predicted_name")
    writer.writerow([*columns, "probability", "true_probability"])
    for one in found:
        place = shown(one.path.removeprefix(start))
        place = os.path.join(".", place) if place.startswith(FORMULA) else place  # noqa: PTH118
        names = (csv_cell(shown(class_names[label])) for label in (one.label, one.predicted))
        shares = (f"{p:.6f}" for p in (one.probability, one.true_probability))
        writer.writerow([one.label, one.predicted, place, *names, *shares])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, content.getvalue())


def write_logits(directory: str | Path, logits: list[np.ndarray]) -> None:
    """logits.npy: logits (pictures, classes) of all batches, in the order of predictions.csv."""
    content = io.BytesIO()
    np.save(content, np.concatenate(logits), allow_pickle=False)
    write_bytes(Path(directory) / LOGITS, content.getvalue())


def dataset_of(model_dir: str) -> str:
    """DATASET.LABEL, else NAME, of a run; "" without a folder, "unknown" without a config.yaml."""
    path = Path(model_dir or ".") / "config.yaml"
    if not model_dir or not path.is_file():
        return "unknown" if model_dir else ""
    with suppress(yaml.YAMLError, UnicodeDecodeError, RecursionError):
        match yaml.safe_load(path.read_text(encoding="utf-8")):
            case {"DATASET": {"LABEL": str(label)}} if label:
                return label
            case {"DATASET": {"NAME": str(name)}}:
                return name
    raise ValueError(f"{path} does not say which data set the run was on (DATASET.NAME)")


def write_results(directory: str | Path, results: dict[str, Any]) -> Path:
    """Write results.json whole or not at all; its presence says that the run is done."""
    path = Path(directory) / RESULTS
    path.parent.mkdir(parents=True, exist_ok=True)
    record = results | {
        "versions": versions(), "git": git_revision(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    text = NUMBERS.sub(lambda found: " ".join(found[0].split()), json.dumps(record, indent=2))
    write_text(path, text + "\n")
    return path
