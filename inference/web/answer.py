"""The page's answer: what Spotlighter and zero-shot CLIP predict, and a figure of why."""

from __future__ import annotations

import io
from functools import lru_cache, partial
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from datasets.pictures import open_picture
from inference.overlays import INCHES, draw_row, name_maps, ranks_by_colour
from inference.predictor import Prediction, SpotlighterPredictor
from runs.figure_style import save

CLASS_LISTS = 4  # whose models are kept
TOP = 5  # classes that are shown
CLASSES = 1000  # that may be named, where the run itself has no more
CHARACTERS = 200  # of a class name
Shares = dict[str, float]
"""Probabilities of the likeliest classes, best first."""


class Answer(NamedTuple):
    """What the page shows."""

    spotlighter: Shares
    zero_shot: Shares
    looked_at: Image.Image | None
    """The picture, both maps and the kept patches; None where the run selects no patches."""


class Answerer:
    """Answers with one run, on any class list.

    Args:
        model_dir: output folder of the run.
        root: folder of all data sets; only for a run that does not name its classes.

    Raises:
        ValueError, OSError: see `SpotlighterPredictor.from_run`.
    """

    def __init__(self, model_dir: str, root: str = "") -> None:
        self.open = partial(SpotlighterPredictor.from_run, model_dir, root=root)
        self.predictors = lru_cache(CLASS_LISTS)(self._predictors)
        self.zero_shot = lru_cache(CLASS_LISTS)(partial(self.open, zero_shot=True))
        self.class_names = self.predictors((), "")[0].class_names

    def _predictors(
        self, names: tuple[str, ...], new: str
    ) -> tuple[SpotlighterPredictor, SpotlighterPredictor]:
        """The run's model and zero-shot CLIP; () stands for the run's own classes."""
        tuned = self.open(names or None, new=new)
        return tuned, self.zero_shot(tuple(tuned.class_names))

    def answer(self, picture: str | Image.Image | None, text: str, new: str = "") -> Answer:
        """Look at one picture.

        Args:
            picture: a file or a picture.
            text: class names, a line each or with commas between; the run's own if empty.
            new: what classes get that the bank has not seen; as the run says if empty.

        Raises:
            ValueError, OSError: no picture, one that cannot be read, or names that cannot be used.
        """
        if picture is None:
            raise ValueError("there is no picture yet: drop one, or choose a file")
        shown = text.strip() == "\n".join(self.class_names)  # a name of the run may have a comma
        most = max(CLASSES, len(self.class_names))
        names = self.class_names if shown else read_names(text, most)
        own = names == self.class_names
        tuned, plain = self.predictors(() if own else tuple(names), new)
        image = tuned.open(picture)
        found, other = tuned.predict(image, topk=TOP)[0], plain.predict(image, topk=TOP)[0]
        looked_at = None if found.keep_indices is None else draw(tuned, image, found)
        return Answer(dict(found.top), dict(other.top), looked_at)


def read_names(text: str, most: int = CLASSES) -> list[str]:
    """Class names, a line each or with commas between, each once; none or at least two.

    Raises:
        ValueError: they are more than `most`, or one alone; or one is too long.
    """
    lines = text.replace(",", "\n").splitlines()
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(names) == 1:
        raise ValueError(f"one class ({names[0]:.60}) leaves no choice: name two or more")
    if len(names) > most:
        raise ValueError(f"{len(names)} classes are named; {most} are allowed")
    for name in names:
        if len(name) > CHARACTERS:
            raise ValueError(
                f"a class name has {len(name)} characters ({name:.30}...); {CHARACTERS} are allowed"
            )
    return names


def draw(predictor: SpotlighterPredictor, image: Image.Image, found: Prediction) -> Image.Image:
    """Four panels: the picture as the model sees it, both activation maps, the kept patches."""
    figure = Figure(figsize=(4 * INCHES, INCHES + 0.65), layout="constrained")
    panels = figure.subplots(1, 4)
    draw_row(panels, predictor, image, found)
    name_maps([panels], size=10)
    panels[0].set_title("as the model sees it", fontsize=10)
    ranks = ranks_by_colour(len(found.keep_indices or ()), predictor.level1)
    panels[3].set_title(f"kept: {ranks}", fontsize=10)
    buffer = io.BytesIO()
    save(figure, buffer, dpi=110)
    return open_picture(buffer)
