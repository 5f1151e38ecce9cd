"""What a trainer declares: its settings, and how its model is built."""

from __future__ import annotations

from typing import Any

from dassl.engine import TrainerX
from torch import Tensor, nn
from yacs.config import CfgNode

from models.classifier import CLIPClassifier
from trainers.settings import Run, Settings, add_settings, read_settings


class PromptTuner(TrainerX):
    """A trainer is a `Settings` class, a config node, and `build`.

    Attributes:
        learns: whether there is anything to train.
    """

    node: str
    settings_class: type[Settings]
    learns = True
    settings: Any

    @classmethod
    def extend_cfg(cls, cfg: CfgNode) -> None:
        """Add this trainer's keys, with their defaults, to a config."""
        add_settings(cfg, cls.node, cls.settings_class)

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: Any, run: Run
    ) -> CLIPClassifier:
        """The model: images -> logits, with the trainable part under `.learned`."""
        raise NotImplementedError

    @classmethod
    def model_classes(cls, run: Run) -> list[str]:
        """The classes that the model knows; those of the run, if the trainer does not say more."""
        return list(run.dataset.classnames)

    @classmethod
    def epoch_weights(cls, settings: Any, epochs: int) -> Tensor | None:
        """Weights of a mean of the parameters over epochs; None for the last epoch's."""
        return None

    @classmethod
    def reports_halves(cls, cfg: CfgNode) -> bool:
        """Whether a run on all classes is evaluated on base and on new classes, too."""
        return False

    @property
    def tuner(self) -> tuple[type[PromptTuner], Any]:
        """Whose prompts are tuned, and its settings: this trainer, or the base of a head."""
        return type(self), self.settings

    def build_clip(self, tuner: CLIPClassifier) -> nn.Module:
        """The model of this trainer: the tuner, or a head on it."""
        return tuner

    def check_cfg(self, cfg: CfgNode) -> None:
        """Read and check the settings before anything is loaded."""
        self.settings = read_settings(cfg, self.node, self.settings_class)
