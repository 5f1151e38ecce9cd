"""TaskRes: what a task adds to each class's text feature is learned.

Source: Yu et al., CVPR 2023, https://arxiv.org/abs/2211.10277, section 3.3
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.class_weights import ClassVectors, ClassWeightsModel
from models.clip.blocks import unit
from trainers.base import register
from trainers.clap import ZSLP
from trainers.settings import BuildContext, Settings


@dataclass(frozen=True)
class TaskResSettings(Settings):
    """Keys of TRAINER.TaskRes."""

    RESIDUAL_SCALE: float = 1.0  # the published commands: 0.5, of oxford_flowers 1
    ENHANCED_BASE: str = "none"
    UNIT: bool = False  # whether t_c is of unit length; in the published code of CLIP's own
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = ("ENHANCED_BASE", "UNIT")

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        found = super().problems()
        if self.ENHANCED_BASE != "none":
            found.append(
                f"ENHANCED_BASE must be none, got {self.ENHANCED_BASE!r}: text towers that were "
                "tuned beforehand are not read here"
            )
        return found


class Residuals(ClassVectors):
    """What is learned beside each class's text feature; nothing at the beginning."""

    def __init__(self, class_names: list[str], text: Float[Tensor, "C D"]) -> None:
        super().__init__(class_names, text)
        torch.nn.init.zeros_(self.weight)


class TaskResModel(ClassWeightsModel):
    """Class weights t_c + alpha x_c, of which x_c is learned."""

    vectors = Residuals
    alpha: float

    def class_features(self) -> Float[Tensor, "C D"]:
        """t_c + alpha x_c, at unit length."""
        return unit(self.learned.text + self.alpha * self.learned.weight)


@register
class TaskRes(ZSLP):
    """Task residual tuning, on the regular base."""

    node = "TaskRes"
    settings_class = TaskResSettings
    checkpoint_name = "prompt_learner"
    model_class = TaskResModel

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: Any, run: BuildContext
    ) -> TaskResModel:
        """The residuals start at 0."""
        model: Any = super().build(clip, class_names, settings, run)
        model.alpha = settings.RESIDUAL_SCALE
        return model
