"""The page's answer: what a run and zero-shot CLIP say of a picture, and where the run looked."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from inference.overlays import ranks_by_colour
from inference.photograph import Photograph
from inference.predictor import Prediction, SpotlighterPredictor
from models.class_names import match_names
from models.spotlighter import CHOICES
from models.spotlighter.head import SpotlighterHead

MODELS = 8  # kept in memory: a run's and zero-shot CLIP, of four class lists
TOP = 5  # classes that are shown
CLASSES = 1000  # most that may be named; a run with more may name as many as it has
CHARACTERS = 200  # longest class name
SAME = 0.01  # two models that differ by no more in any probability say the same
SURE = 0.99
ZERO_SHOT = "Zero-shot CLIP"


class Column(NamedTuple):
    """What one model says."""

    title: str
    """The trainer."""
    subtitle: str
    top: list[tuple[str, float]]
    """The likeliest classes and their probabilities, best first."""


class Drawn(NamedTuple):
    """The photograph, drawn three times."""

    kept: Image.Image
    ranks: str
    """Which ranks have which colour."""
    sample_wise: Image.Image
    semantic_wise: Image.Image


class Answer(NamedTuple):
    """The content of the page, besides the questions."""

    columns: tuple[Column, Column]
    """The run, zero-shot CLIP."""
    comparison: str
    """A sentence: do they agree? Where they say the same, why."""
    unsure: str
    """A sentence for each whose top probability lies below the threshold."""
    drawn: Drawn | None
    """None where the run selects no patches."""


class Answerer:
    """Answers with one of several runs, on any class list.

    `runs` are folders that `SpotlighterPredictor.from_run` opens, by the names on the page; the
    first one is that of a question which names none.
    """

    def __init__(self, runs: Mapping[str, str | Path], root: str = "") -> None:
        self.runs, self.root = dict(runs), root
        self.open = lru_cache(MODELS)(self._open)
        self.own: dict[str, tuple[str, ...]] = {}  # class names of the runs that were opened
        self.class_names = self.names(next(iter(self.runs)))

    def _open(
        self, run: str, names: tuple[str, ...] | None, *, new: str = "", zero_shot: bool = False
    ) -> SpotlighterPredictor:
        return SpotlighterPredictor.from_run(
            self.runs[run], names, new=new, root=self.root, zero_shot=zero_shot
        )

    def names(self, run: str) -> tuple[str, ...]:
        """The class names of a run; a ValueError if there is no such run."""
        if run not in self.runs:
            raise ValueError(f"there is no run {run:.60}; choose one of {', '.join(self.runs)}")
        if run not in self.own:
            self.own[run] = tuple(self.open(run, None, new="").class_names)
        return self.own[run]

    def is_own(self, text: str) -> bool:
        """Whether a class list is that of a run that was opened, and not of whoever asks."""
        return any(text.strip() == "\n".join(names) for names in self.own.values())

    def answer(
        self, picture: str | Image.Image | None, text: str, new: str = "", threshold: float = 0.0,
        run: str = "",
    ) -> Answer:
        """Classify a picture among the class names in `text` (see `read_names`; empty: the run's).

        `new` says how class names that were not in training are treated; as the run says if empty.
        A top probability below `threshold`, in 0..1, is called unsure. A ValueError or an OSError
        says what is wrong with the picture, the names, the threshold or the run.
        """
        if picture is None:
            raise ValueError("there is no picture yet: upload one")
        run = run or next(iter(self.runs))
        own = self.names(run)
        is_own = text.strip() == "\n".join(own)  # such a name may have a comma
        names = own if is_own else tuple(read_names(text, max(CLASSES, len(own))))
        tuned = self.open(run, None if names in ((), own) else names, new=new)
        plain = self.open(run, tuple(tuned.class_names), zero_shot=True)
        image, every = tuned.open(picture), len(tuned.class_names)
        (found,), (other,) = (
            one.predict(image, topk=every, threshold=threshold) for one in (tuned, plain)
        )
        before = f"trained on {tuned.data}" if tuned.trainer_class.learns else "without training"
        columns = (
            Column(tuned.trainer_name, before, found.top[:TOP]),
            Column(ZERO_SHOT, "the same CLIP, without training", other.top[:TOP]),
        )
        unsure = " ".join(
            f"{name} is unsure: {percent(one.probability)} is below {percent(threshold)}."
            for (name, *_), one in zip(columns, (found, other), strict=True)
            if one.unsure
        )
        drawn = None if found.keep_indices is None else draw(tuned, image, found)
        return Answer(columns, compare(tuned, found, other, own), unsure, drawn)


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


def percent(share: float) -> str:
    """A probability, in percent."""
    return f"{100 * share:.1f} %"


def compare(
    tuned: SpotlighterPredictor, found: Prediction, other: Prediction, own: Collection[str]
) -> str:
    """A sentence on what a run says beside zero-shot CLIP; `own` are the classes of the run."""
    shares, others = dict(found.top), dict(other.top)
    if max(abs(shares[name] - others[name]) for name in shares) <= SAME:
        return f"Both columns agree to within a point: {why_same(tuned, found, other, own)}."
    if found.class_name != other.class_name:
        return "They name different classes."
    pairs = [(found.probability, tuned.trainer_name), (other.probability, "zero-shot CLIP")]
    (less, _), (more, name) = sorted(pairs)
    return (
        f"Both name the same class; {name} is surer of it: {percent(more)} against {percent(less)}."
    )


def why_same(
    tuned: SpotlighterPredictor, found: Prediction, other: Prediction, own: Collection[str]
) -> str:
    """Why a run and zero-shot CLIP say the same."""
    kind, head = tuned.trainer_class, getattr(tuned.model, "head", None)
    is_new = max(match_names(tuned.class_names, list(own))) < 0  # all of them
    prompts = "the learned prompts alone answer, and they say what zero-shot CLIP does"
    if not kind.learns:
        return "the run is zero-shot CLIP itself, without training"
    if head is not None and not head.options.gate:
        return f"the head is switched off (TRAINER.SPOTLIGHTER.GATE False), so {prompts}"
    if head is not None and not weighs_bank(head, is_new=is_new):
        which = "none of these classes was in training, and for such" if is_new else "in this run"
        return f"{which} the bank has weight 0, so {prompts}"
    if is_new:
        return (
            "none of these classes was in training; what the run does with such classes "
            f"({kind.new_classes}) changes little here"
        )
    if min(found.probability, other.probability) >= SURE:
        return "both are sure, and training has nothing to add to that"
    return "what was learned in training changes little in this picture"


def weighs_bank(head: SpotlighterHead, *, is_new: bool) -> bool:
    """Whether the bank of a Spotlighter head has a weight, for classes of training or for new."""
    if not is_new:
        return bool(head.level.any())
    kind = head.options.new
    choice = CHOICES.index(kind) if kind in CHOICES else int(head.new_kind)
    return bool(head.new_parts[choice][1:].any())


def draw(predictor: SpotlighterPredictor, image: Image.Image, found: Prediction) -> Drawn:
    """The photograph with the kept patches, and with both maps."""
    photo, grid = Photograph.of(image, predictor), round((predictor.num_patches or 0) ** 0.5)
    assert found.sample_wise is not None
    assert found.semantic_wise is not None
    return Drawn(
        photo.with_kept(found.keep_indices or (), grid, predictor.level1 or 0),
        ranks_by_colour(predictor, found),
        photo.with_map(found.sample_wise, grid),
        photo.with_map(found.semantic_wise, grid),
    )
