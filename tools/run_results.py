"""Read what runs left behind: results.json, or the log.txt of CoOp and its relatives."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.sweeps.names import CONFIGS, dataset_name, stems

# What identifies a row; the source is the data set that was trained on.
KEY = ["source", "dataset", "trainer", "config", "shots", "seed"]
GROUP = KEY[:-1]
CLASSES = ["all", "base", "new"]
WORDS = ("trainer", "dataset", "config", "classes", "source")
NUMBERS = ("shots", "seed", "accuracy")
EFFORT = ["images_per_s", "learned_parameters"]  # may be missing: logs do not say
WHOLE = ("shots", "seed", "learned_parameters")

SEED_FOLDER = r"seed(?P<seed>\d+)$"
LAYOUTS = [
    re.compile(
        r"(?P<half>train_base|test_new)/(?P<dataset>[^/]+)/shots_(?P<shots>\d+)/(?P<trainer>[^/]+)/"
        rf"(?P<config>[^/]+)/{SEED_FOLDER}"
    ),
    re.compile(
        r"/(?P<elsewhere>evaluation)/(?P<trainer>[^/]+)/(?P<config>[^/]+)_(?P<shots>\d+)shots/"
        rf"(?:nctx[^/]+/)?(?P<dataset>[^/]+)/{SEED_FOLDER}"
    ),
    re.compile(
        r"/(?P<dataset>[^/]+)/(?P<trainer>[^/]+)/(?P<config>[^/]+)_(?P<shots>\d+)shots/"
        rf"(?:nctx[^/]+/)?{SEED_FOLDER}"
    ),
]


def read_results(path: Path) -> dict[str, Any]:
    """Read one results.json; without a source it was trained on its own data set.

    Raises:
        ValueError: it is no JSON, or a field is missing or of the wrong type.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    given = record if isinstance(record, dict) else {}
    found = {key: given.get(key) for key in (*WORDS, *NUMBERS, *EFFORT)}
    found["source"] = given.get("source") or given.get("dataset")
    for field, value in found.items():
        if not (fits(field, value) or (value is None and field in EFFORT)):
            raise ValueError(f"{field} is {value!r:.60}")
    return found | {"folder": str(path.parent)}


def fits(field: str, value: Any) -> bool:
    """Whether a field may have a value: words on one line, percent, numbers that count."""
    if field == "classes":
        return value in CLASSES
    if field in WORDS:
        return isinstance(value, str) and value.isprintable()
    if isinstance(value, bool) or not isinstance(value, int if field in WHOLE else (int, float)):
        return False
    return 0 <= value <= 100 if field == "accuracy" else abs(value) < 2**53


def read_accuracy(log: str, keyword: str = "accuracy") -> float | None:
    """Return the final accuracy, or another result in percent, that a log reports.

    None if the run did not end, or reports no such result.

    A log that trains counts from "Finish training" (or "Finished training") on, because validation
    prints results too; one that only evaluates counts from "=> result" on.
    """
    trains = re.search(r"^epoch \[", log, re.MULTILINE)
    end = r"^(Finish|Finished) training$" if trains else r"^=> result$"
    match = re.search(end, log, re.MULTILINE)
    result = re.compile(rf"\* {re.escape(keyword)}: ([\.\deE+-]+)%")
    found = result.findall(log, match.end()) if match else []
    return float(found[-1]) if found else None


def newest_accuracy(folder: Path, keyword: str = "accuracy") -> float:
    """Final accuracy, or another result in percent, of the newest finished log of a folder.

    Raises:
        ValueError: no log ends with one.
    """
    logs = sorted(folder.glob("log.txt*"))
    texts = [log.read_text(encoding="utf-8", errors="replace") for log in logs]
    found = [read_accuracy(text, keyword) for text in texts]
    finished = [accuracy for accuracy in found if accuracy is not None]
    if not finished:
        reports = "" if keyword == "accuracy" else f", or its log has no {keyword}"
        raise ValueError(f"the run did not finish{reports}")
    return finished[-1]


def read_logs(folder: Path) -> dict[str, Any]:
    """Read the newest finished log of a run; what was run is told by its folder.

    Raises:
        ValueError: the folder has no known layout, or no log ends with an accuracy; or the run is
            one of ours and not done.
    """
    if (folder / "config.yaml").exists():  # a run of ours, which then leaves results.json
        raise ValueError("the run did not finish")
    matches = (layout.search(folder.absolute().as_posix()) for layout in LAYOUTS)
    where = next((match.groupdict() for match in matches if match), None)
    if where is None:
        raise ValueError("its folder does not say trainer, data set and seed")
    accuracy = newest_accuracy(folder)
    classes = {"train_base": "base", "test_new": "new"}.get(where.pop("half", ""), "all")
    # Those projects train for other data sets on ImageNet alone.
    source = "imagenet" if where.pop("elsewhere", None) else where["dataset"]
    where |= {"dataset": name_of(where["dataset"]), "source": name_of(source)}
    numbers = {"shots": int(where["shots"]), "seed": int(where["seed"])}
    return where | numbers | {"classes": classes, "accuracy": accuracy}


def name_of(stem: str) -> str:
    """DATASET.NAME of a data set that a folder calls by its stem; the stem if there is no such."""
    known = stem in stems(CONFIGS / "datasets")
    return dataset_name(stem) if known else stem


def read_runs(root: Path) -> Iterator[dict[str, Any]]:
    """Yield every run below a folder; what cannot be read is reported in one line and skipped."""
    folders = {path.parent for name in ("results.json", "log.txt") for path in root.rglob(name)}
    for folder in sorted(folders):
        path = folder / "results.json"
        try:
            yield read_results(path) if path.exists() else read_logs(folder)
        except (OSError, ValueError, RecursionError) as error:
            path = path if path.exists() else folder / "log.txt"
            print(f"skipped {path}: {error}", file=sys.stderr)
