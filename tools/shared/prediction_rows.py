"""Predictions as rows of CSV, or as lines of JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from inference.predictor import Prediction, SpotlighterPredictor
from tools.results.cells import csv_cell

Write = Callable[[Path, Prediction, Path | None], None]
"""Writes a picture's prediction, and where its overlay is, if there is one."""


def csv_writer(out: TextIO, topk: int, predictor: SpotlighterPredictor) -> Write:
    """Columns: path, class, probability, class_2, probability_2, ..., kept_patches, spotlight.

    Kept patches are numbers with spaces between; both columns are empty where they mean nothing.
    Words that a spreadsheet would take for a formula have an apostrophe before them.
    """
    writer = csv.writer(out, lineterminator="\n")
    ranks = range(2, 1 + min(topk, len(predictor.class_names)))
    more = [f"{column}_{rank}" for rank in ranks for column in ("class", "probability")]
    writer.writerow(["path", "class", "probability", *more, "kept_patches", "spotlight"])

    def write(path: Path, found: Prediction, overlay: Path | None) -> None:
        told = [cell for name, p in found.top for cell in (name, f"{p:.6f}")]
        kept = " ".join(map(str, found.keep_indices or ()))
        writer.writerow(map(csv_cell, (str(path), *told, kept, str(overlay or ""))))

    return write


def json_writer(out: TextIO, topk: int, predictor: SpotlighterPredictor) -> Write:
    """An object a line: path, class, probability, top, and kept_patches, spotlight if there are."""

    def write(path: Path, found: Prediction, overlay: Path | None) -> None:
        row: dict[str, object] = {
            "path": str(path),
            "class": found.class_name,
            "probability": round(found.probability, 6),
            "top": [{"class": name, "probability": round(p, 6)} for name, p in found.top],
        }
        if found.keep_indices is not None:
            row["kept_patches"] = found.keep_indices
        if overlay is not None:
            row["spotlight"] = str(overlay)
        out.write(json.dumps(row, ensure_ascii=False) + "\n")

    return write


WRITERS = {"csv": csv_writer, "jsonl": json_writer}
