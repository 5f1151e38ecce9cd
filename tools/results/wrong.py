"""The pictures that a run got wrong: what it saw, what it said, and how sure it was."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from PIL import Image, ImageOps

from datasets.pictures import shown
from runs.draw import mark_kept
from runs.logs import quiet
from tools.results.evidence import config_keys, read_config
from tools.results.figures import Picture, data_uri
from tools.results.read import read_predictions

if TYPE_CHECKING:
    from inference.predictor import SpotlighterPredictor

SIDE, GAP = 224, 6  # pixels: height of a picture, space between two
WIDEST = 2  # times as wide as high, at most
TOP = 3  # classes that a caption names
QUALITY = 75  # of JPEG
SPACE = "\N{NO-BREAK SPACE}"


def read_wrong(folder: Path) -> pd.DataFrame:
    """Return the rows of predictions.csv that are wrong, the surest first.

    A ValueError says that the file is of a version that wrote no paths.
    """
    names = json.loads((folder / "results.json").read_text("utf-8")).get("class_names") or []
    read_predictions(folder, len(names))  # is it sound?
    found = pd.read_csv(folder / "predictions.csv")
    if not {"path", "probability"} <= set(found):
        raise ValueError(f"{folder}/predictions.csv names no pictures; evaluate the run again")
    wrong = found[found["label"] != found["predicted"]]
    for column, name in (("label", "true_name"), ("predicted", "predicted_name")):
        wrong = wrong.assign(**{name: wrong[column].map(list(names).__getitem__).astype(str)})
    return wrong.sort_values("probability", ascending=False, kind="stable")


def root_of(folder: Path, root: str) -> Path:
    """Return the folder that the paths of a run's predictions.csv start from."""
    found = Path(root or config_keys(read_config(folder)).get("DATASET.ROOT", "")).expanduser()
    return found.parent if found.is_file() else found


def wrong_pictures(folder: Path, root: str, most: int) -> tuple[list[Picture], str]:
    """Return at most `most` wrong pictures of a run, the surest first, and how many there are."""
    from inference.predictor import SpotlighterPredictor  # loads torch

    wrong, base = read_wrong(folder), root_of(folder, root)
    count = len(pd.read_csv(folder / "predictions.csv", usecols=["label"]))
    what = f"{len(wrong)} of {count} test pictures are wrong"
    if not len(wrong):
        return [], f"{what}."
    with quiet("dassl", "trainers", "runs"):
        predictor = SpotlighterPredictor.from_run(folder, root=root)
    rows = list(wrong.head(most).itertuples())
    found = [of_picture(base / row.path, row.true_name, predictor) for row in rows]
    which = "all of them" if len(rows) == len(wrong) else f"the {len(rows)} that it is surest of"
    where = ""
    if predictor.num_patches is not None:
        where = "; right: the part that the model sees, and the patches that it kept"
        where += " (yellow: level 1; blue: level 2)" * bool(predictor.level1)
    return found, f"{what}; here are {which}, the surest first. Left: the picture{where}."


def of_picture(path: Path, true: str, predictor: SpotlighterPredictor) -> Picture:
    """Return a picture, and beside it where the model looked; its caption says what it said."""
    picture = predictor.open(path)
    found = predictor.predict(picture, topk=TOP)[0]
    size = (min(round(SIDE * picture.width / picture.height), WIDEST * SIDE), SIDE)
    panels = [ImageOps.pad(picture, size, color="white")]
    if found.keep_indices is not None and predictor.num_patches:
        square = ImageOps.fit(picture, (SIDE, SIDE))  # what the model sees is the middle
        grid, level1 = round(predictor.num_patches**0.5), predictor.level1 or 0
        panels.append(mark_kept(square, found.keep_indices, grid, level1))
    width = sum(panel.width for panel in panels) + GAP * (len(panels) - 1)
    sheet, left = Image.new("RGB", (width, SIDE), "white"), 0
    for panel in panels:
        sheet.paste(panel, (left, 0))
        left += panel.width + GAP
    content = io.BytesIO()
    sheet.save(content, "JPEG", quality=QUALITY)
    said = ", ".join(f"{name} {100 * p:.1f}{SPACE}%" for name, p in found.top)
    text = f"true: {true}; said: {said} ({shown(path.name)})"
    return Picture(data_uri("jpeg", content.getvalue()), text)
