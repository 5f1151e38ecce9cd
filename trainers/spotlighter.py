"""Spotlighter: keep the patches that matter, compare them with prototypes of each class.

A head on another trainer's prompt tuner (`BASE`). The method is in models/spotlighter/ and
docs/method.md. Source: arXiv 2509.00905 (EMNLP Findings 2025).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from yacs.config import CfgNode

from models.classifier import CLIPClassifier
from models.clip.prune import LinearDiscriminant, most_attended
from models.clip.tokenizer import normalise_name
from models.spotlighter.head import SpotlighterHead
from models.spotlighter.model import SpotlightedCLIP
from models.spotlighter.options import HeadOptions
from runs.data import training_pictures
from trainers.base import CLIPTrainer, register, trainer_named, trainer_names
from trainers.settings import BuildContext, Settings, read_settings
from trainers.templates import DEFAULT


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
    BALANCE: float = 50.0  # divides the losses of the levels
    DISTILL: float = 20.0  # weighs the distance of text features to "a photo of a {}."
    LR_MULT: float = 0.1  # learning rate of the head's scalars over that of the context
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = (
        "MOMENTUM", "BALANCE", "DISTILL", "LEVELS", "LR_MULT",
    )

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        found = Settings.problems(self) + HeadOptions.problems(self)
        if self.BASE not in bases():
            found.append(f"BASE must be one of {', '.join(bases())}, got {self.BASE!r}")
        return found + self.at_least(0, "BALANCE", "DISTILL", "LR_MULT")


@register
class Spotlighter(CLIPTrainer):
    """A prompt tuner with a Spotlighter head on it."""

    node = "SPOTLIGHTER"
    settings_class = SpotlighterSettings

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
        sentences = [DEFAULT.format(normalise_name(name)) for name in class_names]
        head = SpotlighterHead(class_names, tuner.text.encode(sentences), settings)
        return SpotlightedCLIP(tuner, head, balance=settings.BALANCE, distill=settings.DISTILL)

    def compatibility(self) -> dict[str, Any]:
        """The base must be the same, too."""
        return super().compatibility() | {"base": self.settings.BASE}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Give the head's scalars their own learning rate, and no decay, which pulls them to 0."""
        scalars = list(self.model.head.parameters(recurse=False))
        chosen = {id(p) for p in scalars}
        rest = [p for p in self.model.learned.parameters() if id(p) not in chosen]
        rate = self.cfg.OPTIM.LR * self.settings.LR_MULT
        return [{"params": rest}, {"params": scalars, "lr": rate, "weight_decay": 0.0}]

    def before_training(self) -> None:
        """Fill the bank from the training images, unless a checkpoint has filled it."""
        if not self.model.head.memory.calibrated:
            self.calibrate()

    @torch.no_grad()
    def calibrate(self) -> None:
        """Fill the bank in two passes over the training images, prepared as at test.

        The first learns in which direction the patches that the last block attends to differ. The
        second writes the kept patches.
        """
        self.set_model_mode("eval")
        model, memory = self.model, self.model.head.memory
        statistics = LinearDiscriminant()
        for image, _ in training_pictures(self.cfg, self.state):
            tokens = model.base.encode_image(image, model.patch_path)
            statistics.add(model.head.patches(tokens), most_attended(tokens.cls_attention))
        memory.set_direction(statistics)
        batches = []
        for image, label in training_pictures(self.cfg, self.state):
            label = model.base.target(image, label).label
            batches.append((*model.forward_all(image).memory_inputs(), label))
        memory.calibrate(*(torch.cat(column) for column in zip(*batches, strict=True)))

    def end_of_epoch(self) -> None:
        """Order the slots by evidence before anything is saved."""
        self.model.head.memory.sort_by_mass()

    def end_of_training(self) -> None:
        """Fill the bank anew if the base has changed the image features."""
        if self.model.base.learns_images:
            self.calibrate()
