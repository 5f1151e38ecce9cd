"""Spotlighter: keep the patches that matter, compare them with prototypes of each class.

A head on another trainer's prompt tuner (`BASE`). The method is in models/spotlighter/ and
docs/method.md. Source: arXiv 2509.00905 (EMNLP Findings 2025).
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from yacs.config import CfgNode

from models.classifier import CLIPClassifier
from models.spotlighter import CHOICES, LEVELS
from models.spotlighter.evidence import Pictures, fill_and_fit
from models.spotlighter.head import SpotlighterHead
from models.spotlighter.model import SpotlightedCLIP
from models.spotlighter.options import HeadOptions
from runs import rng
from runs.features import training_features
from runs.record import changed
from trainers.base import CLIPTrainer, register, trainer_named, trainer_names
from trainers.settings import BuildContext, Settings, read_settings
from trainers.templates import DEFAULT, one_each

logger = logging.getLogger(__name__)

LEAST_CROP = 0.9  # share of a picture that an augmented view in the bank holds at least
MOST_WRITTEN = 80  # views of a class's pictures in the bank, beside the pictures themselves
MOST_BYTES = 2 * 2**30  # features of training pictures that are kept while the head is fitted


def bases() -> dict[str, type[CLIPTrainer]]:
    """The registered trainers whose tuner takes a head, by name."""
    registered = {name: trainer_named(name) for name in sorted(trainer_names())}
    ours = {name: kind for name, kind in registered.items() if issubclass(kind, CLIPTrainer)}
    return {name: kind for name, kind in ours.items() if kind.takes_head}


@dataclass(frozen=True)
class SpotlighterSettings(Settings, HeadOptions):
    """Keys of TRAINER.SPOTLIGHTER; the base's own keys stay under its own node."""

    PREC: str = "fp32"
    BASE: str = "CoOp"
    DISTILL: float = 20.0  # weighs the distance of text features to "a photo of a {}."
    VIEWS: int = 4  # augmented views of each training picture in the bank, beside itself
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = ("DISTILL", "VIEWS", "LEVELS")

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        found = Settings.problems(self) + HeadOptions.problems(self)
        return found + self.one_of(bases(), "BASE") + self.at_least(0, "DISTILL", "VIEWS")


@register
class Spotlighter(CLIPTrainer):
    """A prompt tuner with a Spotlighter head on it."""

    node = "SPOTLIGHTER"
    settings_class = SpotlighterSettings
    new_classes = "the prompts go on, with prototypes where they help"
    model: SpotlightedCLIP
    outdated = ("head.gate",)  # of heads that were not fitted

    def check_cfg(self, cfg: CfgNode) -> None:
        """Check this trainer's keys and its base's."""
        super().check_cfg(cfg)
        base = bases()[self.settings.BASE]
        self.base_settings = read_settings(cfg, base.node, base.settings_class)
        if getattr(self.base_settings, "CSC", False):
            raise ValueError(
                f"TRAINER.{base.node}.CSC True gives each training class a context of its own, "
                "which no new class can have; Spotlighter needs a shared context (CSC False)"
            )

    @property
    def tuner(self) -> tuple[type[CLIPTrainer], Any]:
        """The base, and its settings."""
        return bases()[self.settings.BASE], self.base_settings

    def wrap(self, tuner: CLIPClassifier) -> SpotlightedCLIP:
        """The base tuner with a head on it."""
        settings, run = self.settings, BuildContext(self.cfg, self.dm.dataset)
        class_names = self.tuner[0].model_classes(run)
        anchors = tuner.text.encode(one_each(DEFAULT, class_names))
        head = SpotlighterHead(class_names, anchors, settings)
        return SpotlightedCLIP(tuner, head, distill=settings.DISTILL)

    def compatibility(self) -> dict[str, Any]:
        """The base must be the same, too."""
        return super().compatibility() | {"base": self.settings.BASE}

    def load_model(self, directory: str | Path, epoch: int | None = None) -> None:
        """Load learned weights; a head that is not fitted, or to other LEVELS, is a ValueError."""
        super().load_model(directory, epoch)
        if not directory or not self.settings.gate:
            return
        head, asked = self.model.head, self.settings.levels
        fitted = torch.cat([head.level.view(1, -1), head.new_parts[:, 1:]]).any(0).tolist()
        has = zip(LEVELS, fitted, strict=True)
        if others := [name for name, weight in has if weight and name not in asked]:
            raise ValueError(
                f"the head in {directory} was fitted with weights of {', '.join(others)}, which "
                "TRAINER.SPOTLIGHTER.LEVELS does not name; levels are chosen where a run is "
                "trained: leave LEVELS out, or train anew"
            )
        if not head.memory.filled:
            raise ValueError(
                f"the checkpoint of epoch {self.state.loaded_epoch} in {directory} was saved "
                "before the head was filled and fitted, which is done after the last epoch and "
                "after those that TRAIN.CHECKPOINT_FREQ keeps; finish a run that was stopped by "
                "its own command, or evaluate the base alone with train.py (--allow-mismatch "
                "TRAINER.SPOTLIGHTER.GATE False)"
            )

    def end_of_epoch(self) -> None:
        """Fit the head if this epoch's weights may be evaluated later; else mark it as not fitted.

        Where a run goes on, the head may be that of an earlier epoch.
        """
        frequency, done = self.cfg.TRAIN.CHECKPOINT_FREQ, self.epoch + 1
        is_kept = frequency > 0 and done % frequency == 0
        self.model.head.memory.filled.fill_(False)
        if done < self.max_epoch and (is_kept or self.state.final_model == "best_val"):
            self.learn_on_rank0(self.fit_head)

    def end_of_training(self) -> None:
        """Fit the head."""
        self.learn_on_rank0(self.fit_head)

    @torch.no_grad()
    def fit_head(self) -> None:
        """Fill the bank from the training pictures, and fit the head's weights.

        The random states afterwards are those before.
        """
        began = time.perf_counter()
        self.set_model_mode("eval")
        with rng.seeded(max(0, self.cfg.SEED)):
            fill_and_fit(self.model, *self.pictures())
        head = self.model.head
        kind, own = int(head.new_kind), [head.base.item(), *head.level.tolist()]
        logger.info(
            "Head fitted in %.1f s; weights of base, global level, level 1, level 2 and both: %s; "
            "of classes without pictures (NEW auto: %s): %s",
            *(time.perf_counter() - began, in_short(own), CHOICES[kind]),
            in_short(head.new_parts[kind].tolist()),
        )

    def pictures(self) -> tuple[Pictures, list[Pictures]]:
        """The training pictures, and augmented views of them.

        Views are mild, whatever the training has: a bank of small crops holds what test pictures
        do not look like.
        """
        cfg = self.cfg
        crop = tuple(max(LEAST_CROP, share) for share in cfg.INPUT.RRCROP_SCALE)
        mild = changed(cfg, {"INPUT.RRCROP_SCALE": crop})
        shots = Counter(item.label for item in self.dm.dataset.train_x)
        number = min(self.settings.VIEWS, MOST_WRITTEN // max(shots.values()))
        views: list[Pictures] = [partial(self.tokens, mild, augmented=True)] * number
        return kept_if_small(partial(self.tokens, cfg), shots.total()), views

    def tokens(self, cfg: CfgNode, *, augmented: bool = False) -> Iterator[Any]:
        """Features of the run's training pictures and their labels among the model's classes."""
        base, state = self.model.base, self.state
        for image, label in training_features(cfg, state, self.model, augmented=augmented):
            with state.precision.autocast():
                tokens = base.encode_image(image, self.model.patch_path)
            yield tokens, label if base.rows is None else base.rows[label]


def in_short(weights: list[float]) -> str:
    """Weights to three digits."""
    return ", ".join(f"{weight:.3g}" for weight in weights)


def kept_if_small(pictures: Pictures, number: int) -> Pictures:
    """Features of so many pictures, computed once if they fit into `MOST_BYTES`, else each time."""
    found = []
    for tokens, label in pictures():
        found.append((tokens, label))
        size = sum(column.nbytes for column in tokens if column is not None)
        if size / len(label) * number > MOST_BYTES:  # seen in the first batch
            return pictures
    return lambda: found
