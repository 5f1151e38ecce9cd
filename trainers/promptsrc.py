"""PromptSRC: prompts of both towers, held near to plain CLIP, averaged over epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn

from models.averaging import gaussian_weights
from models.independent_prompts import IndependentCLIP, IndependentPrompts
from models.tokenizer import normalise_name, tokenizer_of
from models.visual_encoder import require_vit
from trainers.base import CLIPTrainer
from trainers.settings import Run, Settings, context_of_words
from trainers.templates import DIVERSE


@dataclass(frozen=True)
class PromptSRCSettings(Settings):
    """Keys of TRAINER.PROMPTSRC."""

    N_CTX_VISION: int = 4
    N_CTX_TEXT: int = 4
    CTX_INIT: str = "a photo of a"
    PROMPT_DEPTH_VISION: int = 9
    PROMPT_DEPTH_TEXT: int = 9
    TEXT_LOSS_WEIGHT: float = 25.0
    IMAGE_LOSS_WEIGHT: float = 10.0
    GPA_MEAN: float = 15.0
    GPA_STD: float = 1.0
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = (
        *("TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT", "GPA_MEAN", "GPA_STD"),
    )

    def faults(self) -> list[str]:
        """What is wrong, a sentence each."""
        found = super().faults()
        found += self.below(1, "N_CTX_VISION", "N_CTX_TEXT", "PROMPT_DEPTH_TEXT")
        found += self.below(0, "PROMPT_DEPTH_VISION", "TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT")
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
    ) -> IndependentCLIP:
        """CLIP with independent prompts in both towers."""
        prompts = IndependentPrompts(
            class_names,
            clip.token_embedding,
            depths=(settings.PROMPT_DEPTH_VISION, settings.PROMPT_DEPTH_TEXT),
            vision_shape=(settings.N_CTX_VISION, require_vit(clip.visual).conv1.out_channels),
            tokenizer=tokenizer_of(clip),
            **context_of_words(settings.N_CTX_TEXT, settings.CTX_INIT),
        )
        names = [normalise_name(name) for name in class_names]
        return IndependentCLIP(
            clip,
            prompts,
            [[template.format(name) for name in names] for template in DIVERSE],
            text_weight=settings.TEXT_LOSS_WEIGHT,
            image_weight=settings.IMAGE_LOSS_WEIGHT,
        )

    @classmethod
    def epoch_weights(cls, settings: PromptSRCSettings, epochs: int) -> Tensor:
        """Gaussian prompt aggregation: the result is a mean over epochs."""
        return gaussian_weights(epochs, settings.GPA_MEAN, settings.GPA_STD)
