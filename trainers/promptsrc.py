"""PromptSRC: prompts of both towers, held near to plain CLIP, averaged over epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn

from models.averaging import gaussian_weights
from models.independent_prompts import RegulatedCLIP
from models.tokenizer import normalise_name
from trainers.base import CLIPTrainer
from trainers.ivlp import IVLPSettings, independent_prompts
from trainers.settings import Run
from trainers.templates import DIVERSE


@dataclass(frozen=True)
class PromptSRCSettings(IVLPSettings):
    """Keys of TRAINER.PROMPTSRC."""

    N_CTX_VISION: int = 4
    N_CTX_TEXT: int = 4
    TEXT_LOSS_WEIGHT: float = 25.0
    IMAGE_LOSS_WEIGHT: float = 10.0
    GPA_MEAN: float = 15.0
    GPA_STD: float = 1.0
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = (
        *("TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT", "GPA_MEAN", "GPA_STD"),
    )

    def faults(self) -> list[str]:
        """What is wrong, a sentence each."""
        found = super().faults() + self.below(0, "TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT")
        return found + (
            [] if self.GPA_STD > 0 else [f"GPA_STD must be above 0, got {self.GPA_STD}"]
        )


@TRAINER_REGISTRY.register()
class PromptSRC(CLIPTrainer):
    """Self-regulating prompts (Khattak et al., ICCV 2023, https://arxiv.org/abs/2307.06948)."""

    node = "PROMPTSRC"
    settings_class = PromptSRCSettings
    checkpoint_name = "VLPromptLearner"

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: PromptSRCSettings, run: Run
    ) -> RegulatedCLIP:
        """CLIP with independent prompts in both towers."""
        names = [normalise_name(name) for name in class_names]
        return RegulatedCLIP(
            clip,
            independent_prompts(clip, class_names, settings),
            [[template.format(name) for name in names] for template in DIVERSE],
            text_weight=settings.TEXT_LOSS_WEIGHT,
            image_weight=settings.IMAGE_LOSS_WEIGHT,
        )

    @classmethod
    def epoch_weights(cls, settings: PromptSRCSettings, epochs: int) -> Tensor:
        """Gaussian prompt aggregation: the result is a mean over epochs."""
        return gaussian_weights(epochs, settings.GPA_MEAN, settings.GPA_STD)
