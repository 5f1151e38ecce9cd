"""IVLP: prompts of both towers, each learned for itself."""

from __future__ import annotations

from dataclasses import dataclass

from dassl.engine import TRAINER_REGISTRY
from torch import nn

from models.independent_prompts import IndependentCLIP, IndependentPrompts
from models.tokenizer import tokenizer_of
from models.visual_encoder import require_vit
from trainers.base import CLIPTrainer
from trainers.settings import Run, Settings, context_of_words


@dataclass(frozen=True)
class IVLPSettings(Settings):
    """Keys of TRAINER.IVLP."""

    N_CTX_VISION: int = 2
    N_CTX_TEXT: int = 2
    CTX_INIT: str = "a photo of a"
    PROMPT_DEPTH_VISION: int = 9
    PROMPT_DEPTH_TEXT: int = 9

    def faults(self) -> list[str]:
        """What is wrong, a sentence each."""
        found = super().faults() + self.below(1, "N_CTX_TEXT", "PROMPT_DEPTH_TEXT")
        found += self.below(0, "PROMPT_DEPTH_VISION")
        # without prompts in the image tower their number does not count; a published yaml says 0
        return found + self.below(1 if self.PROMPT_DEPTH_VISION > 0 else 0, "N_CTX_VISION")


def independent_prompts(
    clip: nn.Module, class_names: list[str], settings: IVLPSettings
) -> IndependentPrompts:
    """The prompts that IVLP and PromptSRC learn."""
    return IndependentPrompts(
        class_names,
        clip.token_embedding,
        depths=(settings.PROMPT_DEPTH_VISION, settings.PROMPT_DEPTH_TEXT),
        vision_shape=(settings.N_CTX_VISION, require_vit(clip.visual).conv1.out_channels),
        tokenizer=tokenizer_of(clip),
        **context_of_words(settings.N_CTX_TEXT, settings.CTX_INIT),
    )


@TRAINER_REGISTRY.register()
class IVLP(CLIPTrainer):
    """Independent vision-language prompts, MaPLe's baseline (https://arxiv.org/abs/2210.03117).

    With PROMPT_DEPTH_VISION 0 it is deep language prompting.
    """

    node = "IVLP"
    settings_class = IVLPSettings
    checkpoint_name = "VLPromptLearner"

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: IVLPSettings, run: Run
    ) -> IndependentCLIP:
        """CLIP with independent prompts in both towers."""
        return IndependentCLIP(clip, independent_prompts(clip, class_names, settings))
