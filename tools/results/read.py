"""Read the results of runs: results.json, or the log.txt of CoOp and its relatives."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from tools.sweeps.names import CONFIGS, dataset_name, stems

# What identifies a row. The source is the data set of the training; the settings, in words, are
# those in which runs of one trainer and config differ.
KEY = ["source", "dataset", "trainer", "config", "settings", "shots", "seed"]
GROUP = KEY[:-1]
CLASSES = ["all", "base", "new"]
WORDS = ("trainer", "dataset", "config", "classes", "source")
NUMBERS = ("shots", "seed", "accuracy")
EFFORT = ["images_per_s", "train_s", "learned_parameters"]  # logs do not have them
MEASURES = ["nll", "ece"]  # of the probabilities; logs and older results.json do not have them
CALIBRATION = [f"{measure}_{classes}" for measure in MEASURES for classes in CLASSES]
WHOLE = ("shots", "seed", "learned_parameters")
# Settings that are no keys of a config, with their defaults; None: unknown.
FOLDS = "folds"  # in a run's folder: the runs that tools/fit_temperature.py leaves
NO_KEYS = {"data": None, "weights": None, "split": "test", "epoch": "final"}

CONTEXT = r"(?:(?:nctx(?P<n_ctx>\d+)_csc(?P<csc>\w+)_ctp(?P<place>\w+)|nctx[^/]+)/)?"
SEED = r"seed_?(?P<seed>\d+)$"
DATASET = r"(?P<dataset>[^/]+)"
LEVEL = r"(?P<trainer>[^/]+)/(?P<config>[^/]+)_(?P<shots>\d+)shots"
SHOTS = r"shots_(?P<shots>\d+)(?:_(?P<weight>[\d.]+))?/(?P<trainer>[^/]+)/(?P<config>[^/]+)"
HALF = "train_base|test_base|test_new"
# The folders of CoOp and its relatives; the first that fits counts.
LAYOUTS = [
    re.compile(rf"/(?P<half>{HALF})/{DATASET}/{SHOTS}/{CONTEXT}{SEED}"),
    re.compile(rf"/(?P<half>{HALF}|base2new)/{DATASET}/{LEVEL}/{CONTEXT}{SEED}"),
    re.compile(rf"/(?P<elsewhere>evaluation)/(?:xd/|dg/)?{LEVEL}/{CONTEXT}{DATASET}/{SEED}"),
    re.compile(rf"/{DATASET}/{LEVEL}/{CONTEXT}{SEED}"),
    re.compile(rf"/(?P<trainer>ZeroshotCLIP2?)/(?P<config>[^/]+)/{DATASET}$"),
]
HALVES = {"train_base": "base", "base2new": "base", "test_base": "base", "test_new": "new"}
OF_HALVES = re.compile(r"/(base2n|(train|test|eval)_(base|new|novel)(?![a-z]))", re.I)
IN_FOLDERS = {  # settings that a folder names
    **{"n_ctx": "TRAINER.COOP.N_CTX", "csc": "TRAINER.COOP.CSC"},
    **{"place": "TRAINER.COOP.CLASS_TOKEN_POSITION", "weight": "TRAINER.COOP.W"},
}


def read_runs(root: Path) -> Iterator[dict[str, Any]]:
    """Yield every run below a folder; what cannot be read is reported in one line and skipped.

    The folds of a run are left out: they are not tested on the test pictures.
    """
    folders = {path.parent for name in ("results.json", "log.txt") for path in root.rglob(name)}
    for folder in sorted(folders):
        if is_fold(folder, root):
            continue
        path = folder / "results.json"
        try:
            yield from [read_results(path)] if path.exists() else read_logs(folder)
        except (OSError, ValueError, RecursionError) as error:
            path = path if path.exists() else folder / "log.txt"
            print(f"skipped {path}: {error}", file=sys.stderr)


def is_fold(folder: Path, root: Path) -> bool:
    """Whether a folder lies in FOLDS of a run below a folder."""
    above = folder.relative_to(root).parents
    return any(x.name == FOLDS and (root / x.parent / "config.yaml").is_file() for x in above)


def read_results(path: Path) -> dict[str, Any]:
    """Read one results.json; `record` is its content but the class names, which many runs share.

    A ValueError names a field that is missing or wrong, or says that nothing was trained.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    given = content if isinstance(content, dict) else {}
    optional = (*EFFORT, *MEASURES)
    run = {key: given.get(key) for key in (*WORDS, *NUMBERS, *optional)}
    run["source"] = given.get("source") or given.get("dataset")
    for field, value in run.items():
        if not (is_valid(field, value) or (value is None and field in optional)):
            raise ValueError(f"{field} is {value!r:.60}")
    if run["learned_parameters"] and given.get("epoch") == 0:
        raise ValueError("nothing was trained (epoch 0), although its trainer learns")
    settings = {key: given.get(key) or NO_KEYS[key] for key in ("data", "weights", "split")}
    if given.get("epoch_chosen_by") == "load_epoch":
        settings["epoch"] = given.get("epoch")
    known = given.get("settings", {})
    if not isinstance(known, dict) or any(isinstance(value, dict) for value in known.values()):
        raise ValueError(f"settings is {known!r:.60}")
    record = {key: value for key, value in given.items() if key != "class_names"}
    return run | {"path": str(path.parent), "record": record, "settings": settings | known}


def is_valid(field: str, value: Any) -> bool:
    """Whether a field may have a value: words on one line, percent, numbers that count."""
    if field == "classes":
        return value in CLASSES
    if field in WORDS:
        return isinstance(value, str) and value.isprintable()
    if isinstance(value, bool) or not isinstance(value, int if field in WHOLE else (int, float)):
        return False
    if field in ("accuracy", "ece"):
        return 0 <= value <= 100
    return (0 if field in ("nll", "train_s") else -(2**53)) <= value < 2**53


def read_predictions(folder: Path, classes: int | None = None) -> pd.DataFrame:
    """Return label and predicted of a run's predictions.csv; a ValueError says what is wrong."""
    path = folder / "predictions.csv"
    try:
        pairs = pd.read_csv(path, usecols=["label", "predicted"], dtype=int)
        if classes is not None and not pairs.isin(range(classes)).all(axis=None):
            raise ValueError(f"labels beyond the {classes} classes")
        return pairs
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} does not say what was predicted: {error}") from error


def read_logs(folder: Path) -> list[dict[str, Any]]:
    """Read the newest finished log of a run; its folder says what was run.

    PromptKD tests both halves: its validation pictures are of base classes, its test of new ones.
    """
    if (folder / "config.yaml").exists():  # this project leaves results.json, too
        raise ValueError("the run did not finish")
    run = place_of(folder)
    log, accuracy = newest_log(folder)
    if run["trainer"] != "PromptKD" or run["classes"] != "base":
        return [run | {"accuracy": accuracy}]
    halves = {"base": last_on(log, "val"), "new": last_on(log, "test")}
    known = {classes: found for classes, found in halves.items() if found is not None}
    return [run | {"classes": classes, "accuracy": found} for classes, found in known.items()]


def place_of(folder: Path) -> dict[str, Any]:
    """Return what the folder of a log says of its run."""
    path = folder.absolute().as_posix()
    matches = [match for layout in LAYOUTS if (match := layout.search(path))]
    # CLAP and TaskRes name no trainer: a data set stands where others have one.
    if not matches or matches[0]["trainer"] in stems(CONFIGS / "datasets"):
        raise ValueError("its folder does not say trainer, data set and seed")
    where = matches[0].groupdict()
    classes = HALVES.get(where.get("half") or "", "all")
    if classes == "all" and OF_HALVES.search(path):
        raise ValueError("its folder does not say whether it tests base or new classes")
    given = {key: where[name] for name, key in IN_FOLDERS.items() if where.get(name)}
    # Those projects train for other data sets on ImageNet alone.
    source = "imagenet" if where.get("elsewhere") else where["dataset"]
    return {
        **{"trainer": where["trainer"], "config": where["config"], "classes": classes},
        **{"dataset": name_of(where["dataset"]), "source": name_of(source)},
        **{"shots": int(where.get("shots") or 0), "seed": int(where.get("seed") or 1)},
        "settings": {key: yaml.safe_load(value) for key, value in given.items()},
        "path": str(folder),
    }


def name_of(stem: str) -> str:
    """Return DATASET.NAME of a data set that a folder calls by its stem; an unknown one stays."""
    return dataset_name(stem) if stem in stems(CONFIGS / "datasets") else stem


def newest_log(folder: Path, keyword: str = "accuracy") -> tuple[str, float]:
    """Return the newest finished log of a folder, and its final accuracy or other percentage."""
    for path in sorted(folder.glob("log.txt*"), reverse=True):
        text = path.read_text("utf-8", "replace")
        if (found := read_accuracy(text, keyword)) is not None:
            return text, found
    reports = "" if keyword == "accuracy" else f", or its log has no {keyword}"
    raise ValueError(f"the run did not finish{reports}")


def read_accuracy(log: str, keyword: str = "accuracy") -> float | None:
    """Return the final accuracy, or another percentage, of a log; None if it has no such result.

    A log that trains counts from "Finish training" (or "Finished training") on, because validation
    prints results too; one that only evaluates counts from "=> result" on.
    """
    trains = re.search(r"^epoch \[", log, re.MULTILINE)
    end = r"^(Finish|Finished) training$" if trains else r"^=> result$"
    match = re.search(end, log, re.MULTILINE)
    found = percentages(log[match.end() :], keyword) if match else []
    return found[-1] if found else None


def last_on(log: str, split: str) -> float | None:
    """Return the last accuracy in percent that a log reports on a split; None if there is none."""
    parts = [part for part in log.split("Evaluate on the *")[1:] if part.startswith(split)]
    found = [results[0] for part in parts if (results := percentages(part, "accuracy"))]
    return found[-1] if found else None


def percentages(log: str, keyword: str) -> list[float]:
    """Return the results of a name in a log, as "* accuracy: 82.0%"."""
    return [float(found) for found in re.findall(rf"\* {re.escape(keyword)}: ([.\deE+-]+)%", log)]
