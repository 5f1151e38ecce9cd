"""Where features are kept: a whole training, counted from steps, and a second evaluation."""

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from torch import Tensor

from lab.bench import STORED
from lab.bench.backbones import SHAPES
from lab.bench.clock import REPORT, Timing
from lab.bench.forms import TRAINER
from lab.bench.loaders import Source
from lab.bench.measure import Bench
from lab.bench.rows import Row, timed_rows
from models.classifier import CLIPClassifier
from runs.logs import quiet
from runs.record import changed
from trainers.base import CLIPTrainer

FIRST = "ZeroshotCLIP"  # fills the store


# A whole training


@dataclass(frozen=True)
class Course:
    """A training: `shots` pictures of each class, seen once an epoch."""

    shots: int = 16
    epochs: int = 50
    views: int = 4  # of each picture, that ours encodes once (FEATURES.VIEWS)

    def steps(self, classes: int, batch: int) -> int:
        """Of all epochs; what does not fill a batch is left out."""
        return self.epochs * max(1, self.shots * classes // batch)

    def counted(self, steps: Timing, encoding: Timing | None, classes: int, batch: int) -> Timing:
        """Seconds in each round, from those of a step and of encoding a batch of pictures."""
        seconds = [self.steps(classes, batch) * one for one in steps.seconds]
        if encoding is not None:
            views = self.views * self.shots * classes / batch
            pairs = zip(seconds, encoding.seconds, strict=True)
            seconds = [trained + views * encoded for trained, encoded in pairs]
        return Timing(tuple(seconds), steps.warmup)

    def note(self, classes: int, batch: int, *, encodes: bool) -> str:
        """What was counted."""
        found = f"counted: {self.steps(classes, batch):,} steps"
        encoded = self.views * self.shots * classes
        return found + (f", {encoded:,} pictures encoded" if encodes else "")


def time_course(bench: Bench, name: str, classes: int, batch: int, course: Course) -> list[Row]:
    """The published training, and ours with a store that is empty at the start."""
    forms = ("published", STORED)
    pair, error = bench.pair(name, classes, forms)
    works, note = bench.steps(pair, name, batch, forms)
    works["encoding"] = encoding_of(bench, pair.ours.tuner, batch)
    timings = bench.clock.compare(works)
    encoding = {"published": None, STORED: timings["encoding"]}
    rows, counted = {}, {}
    for form, encodes in encoding.items():
        counted[form] = course.counted(timings[form], encodes, classes, batch)
        own = course.note(classes, batch, encodes=encodes is not None)
        rows[form] = replace(bench.row("run", name, form, classes, batch), note=own)
    rows[STORED] = replace(rows[STORED], max_error=error)
    if note:
        rows["published"] = replace(rows["published"], note=f"{rows['published'].note}; {note}")
    pictures = course.epochs * course.shots * classes
    return list(timed_rows(rows, counted, pictures).values())


def encoding_of(bench: Bench, tuner: CLIPClassifier, batch: int) -> partial[Tensor]:
    """Encode a batch of pictures."""
    return partial(tuner.encode_raw, bench.images(batch), tuner.step_patches)


# A second evaluation


def time_second(bench: Bench, source: Source, name: str, folder: Path) -> list[Row]:
    """The evaluation of a trainer, from pictures, and from what another one has left in a store."""
    if bench.backbone in SHAPES:
        raise ValueError("--backbone quick is no backbone of train.py; take tiny-emoji")
    REPORT.update(f"evaluating {FIRST}, which fills the store")
    store, output = folder / "store", folder / "runs"
    # The same pictures stand for training and test: that is no news here.
    with quiet("dassl", "datasets", level=logging.ERROR):
        evaluate(trainer_on(bench, source, FIRST, output, store))
        forms = {"ours": None, STORED: store}
        trainers = {form: trainer_on(bench, source, name, output, s) for form, s in forms.items()}
    works = {form: partial(evaluate, trainer) for form, trainer in trainers.items()}
    tested = trainers["ours"].dm.dataset.test
    classes = trainers["ours"].dm.num_classes
    rows = {form: bench.row("second", name, form, classes, source.batch) for form in forms}
    rows = {form: replace(row, note=source.note) for form, row in rows.items()}
    found = timed_rows(rows, bench.clock.compare(works), len(tested)).values()
    plain, _ = found
    return [replace(row, speedup=row.images_per_s / plain.images_per_s) for row in found]


def trainer_on(
    bench: Bench, source: Source, name: str, output: Path, store: Path | None
) -> CLIPTrainer:
    """A trainer as a run builds it, before training."""
    precision = {"float32": "fp32", "bfloat16": "bf16"}[bench.dtype]
    keys = {"TRAINER.NAME": name, "OUTPUT_DIR": str(output / name)}
    keys |= {"MODEL.BACKBONE.NAME": bench.backbone, "MODEL.BACKBONE.PRETRAINED": False}
    keys |= {"USE_CUDA": bench.device != "cpu", f"TRAINER.{TRAINER[name].node}.PREC": precision}
    if store is not None:
        keys |= {"FEATURES.KEEP": "disk", "FEATURES.DIR": str(store)}
    set_random_seed(bench.seed)  # of the weights
    return build_trainer(changed(source.config(0), keys))


def evaluate(trainer: CLIPTrainer) -> None:
    """All of a final evaluation: features, text, logits, results and predictions."""
    with quiet():
        trainer.model.clear_cache()
        trainer.test()
