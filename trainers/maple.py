"""MaPLe: prompts of both towers, coupled, in their first blocks."""

from __future__ import annotations

from dataclasses import dataclass

from dassl.engine import TRAINER_REGISTRY
from torch import nn

from models.multimodal_prompts import MultiModalCLIP, MultiModalPrompts
from models.tokenizer import tokenizer_of
from models.visual_encoder import require_vit
from trainers.base import CLIPTrainer
from trainers.settings import Run, Settings, context_of_words


@dataclass(frozen=True)
class MaPLeSettings(Settings):
    """Keys of TRAINER.MAPLE."""

    N_CTX: int = 2
    CTX_INIT: str = "a photo of a"
    PROMPT_DEPTH: int = 9

    def faults(self) -> list[str]:
        """What is wrong, a sentence each."""
        return super().faults() + self.below(1, "N_CTX", "PROMPT_DEPTH")


@TRAINER_REGISTRY.register()
class MaPLe(CLIPTrainer):
    """Multi-modal prompt learning (Khattak et al., CVPR 2023, https://arxiv.org/abs/2210.03117)."""

    node = "MAPLE"
    settings_class = MaPLeSettings
    checkpoint_name = "MultiModalPromptLearner"

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: MaPLeSettings, run: Run
    ) -> MultiModalCLIP:
        """CLIP with coupled prompts in both towers."""
        prompts = MultiModalPrompts(
            class_names,
            clip.token_embedding,
            vision_width=require_vit(clip.visual).conv1.out_channels,
            depth=settings.PROMPT_DEPTH,
            tokenizer=tokenizer_of(clip),
            **context_of_words(settings.N_CTX, settings.CTX_INIT),
        )
        return MultiModalCLIP(clip, prompts)
