"""The page's answer: predictions of Spotlighter and of zero-shot CLIP, and a figure of the maps."""

import io
from functools import lru_cache, partial
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from datasets.pictures import open_picture
from inference.overlays import INCHES, draw_row, name_maps, ranks_by_colour
from inference.predictor import Prediction, SpotlighterPredictor
from runs.figure_style import save

MODELS = 8  # kept in memory: the run's and zero-shot CLIP, of four class lists
TOP = 5  # classes that are shown
CLASSES = 1000  # most that may be named; a run with more may name as many as it has
CHARACTERS = 200  # longest class name
Shares = dict[str, float]  # probabilities of the likeliest classes, best first


class Answer(NamedTuple):
    """The content of the page, besides the questions."""

    spotlighter: Shares
    zero_shot: Shares
    looked_at: Image.Image | None
    """The picture, both maps and the kept patches; None where the run selects no patches."""
    unsure: str = ""
    """A sentence for each whose top probability lies below the threshold."""


class Answerer:
    """Answers with one run, on any class list; opened as by `SpotlighterPredictor.from_run`."""

    def __init__(self, model_dir: str, root: str = "") -> None:
        self.open = lru_cache(MODELS)(partial(SpotlighterPredictor.from_run, model_dir, root=root))
        self.class_names = self.open(None, new="").class_names

    def answer(
        self, picture: str | Image.Image | None, text: str, new: str = "", threshold: float = 0.0
    ) -> Answer:
        """Classify a picture among the class names in `text` (see `read_names`; empty: the run's).

        `new` says how class names that were not in training are treated; as the run says if empty.
        A top probability below `threshold`, in 0..1, is called unsure. A ValueError or an OSError
        says what is wrong with the picture, the names or the threshold.
        """
        if picture is None:
            raise ValueError("there is no picture yet: upload one")
        own = self.class_names
        is_own = text.strip() == "\n".join(own)  # such a name may have a comma
        names = own if is_own else read_names(text, max(CLASSES, len(own)))
        tuned = self.open(None if names in ([], own) else tuple(names), new=new)
        plain = self.open(tuple(tuned.class_names), zero_shot=True)
        image = tuned.open(picture)
        (found,), (other,) = (
            one.predict(image, topk=TOP, threshold=threshold) for one in (tuned, plain)
        )
        sentences = [
            f"{name} is unsure: {one.probability:.0%} is below {threshold:.0%}."
            for name, one in (("Spotlighter", found), ("Zero-shot CLIP", other))
            if one.unsure
        ]
        drawn = None if found.keep_indices is None else draw(tuned, image, found)
        return Answer(dict(found.top), dict(other.top), drawn, " ".join(sentences))


def read_names(text: str, most: int = CLASSES) -> list[str]:
    """Class names, a line each or with commas between, each once: none, or two to `most`."""
    lines = text.replace(",", "\n").splitlines()
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(names) == 1:
        raise ValueError(f"one class ({names[0]:.60}) leaves no choice: name two or more")
    if len(names) > most:
        raise ValueError(f"{len(names)} classes are named; {most} are allowed")
    longest = max(names, key=len, default="")
    if len(longest) > CHARACTERS:
        length = f"{len(longest)} characters ({longest:.30}...)"
        raise ValueError(f"a class name has {length}; {CHARACTERS} are allowed")
    return names


def draw(predictor: SpotlighterPredictor, image: Image.Image, found: Prediction) -> Image.Image:
    """Four panels: the picture as the model sees it, both activation maps, the kept patches."""
    figure = Figure(figsize=(4 * INCHES, INCHES + 0.65), layout="constrained")
    panels = figure.subplots(1, 4)
    draw_row(panels, predictor, image, found)
    name_maps([panels], size=10)
    panels[0].set_title("as the model sees it", fontsize=10)
    panels[3].set_title(f"kept: {ranks_by_colour(predictor, found)}", fontsize=10)
    buffer = io.BytesIO()
    save(figure, buffer, dpi=110)
    return open_picture(buffer)
