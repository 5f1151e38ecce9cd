"""CLIP without training: one sentence a class, or the mean of several."""

import logging
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from datasets.base import template
from models.classifier import ZeroShotCLIP
from trainers.base import CLIPTrainer, register
from trainers.settings import BuildContext, Settings
from trainers.templates import ensemble, sentences

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ZeroshotSettings(Settings):
    """Keys of TRAINER.ZEROSHOTCLIP."""

    PREC: str = "fp32"


@register
class ZeroshotCLIP(CLIPTrainer):
    """Zero-shot CLIP with the data set's template (Radford et al., ICML 2021, section 3.1.4)."""

    node = "ZEROSHOTCLIP"
    settings_class = ZeroshotSettings
    learns = False
    new_classes = "zero-shot CLIP"
    takes_features = True

    @staticmethod
    def templates(dataset: str) -> tuple[str, ...]:
        """Sentences with a gap for the class name."""
        return (template(dataset),)

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: ZeroshotSettings, run: BuildContext
    ) -> ZeroShotCLIP:
        """Text features are the mean over the templates."""
        templates = cls.templates(run.cfg.DATASET.NAME)
        return ZeroShotCLIP(clip, sentences(templates, class_names))

    def train(self) -> None:  # type: ignore[override]
        """Evaluate: there is nothing to learn."""
        logger.info("%s has nothing to learn: evaluating", self.cfg.TRAINER.NAME)
        self.begin_record()
        self.state.train_s = 0.0
        if not self.cfg.TEST.NO_TEST:
            self.test()

    def load_model(self, directory: str | Path, epoch: int | None = None) -> None:
        """There is nothing to load."""


@register
class ZeroshotCLIP2(ZeroshotCLIP):
    """Zero-shot CLIP with the mean of several templates."""

    @staticmethod
    def templates(dataset: str) -> tuple[str, ...]:
        """The selected templates and the data set's own."""
        return ensemble(dataset)
