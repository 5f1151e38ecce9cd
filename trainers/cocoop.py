"""CoCoOp: the words before the class name, shifted by each image."""

from __future__ import annotations

from dataclasses import dataclass

from dassl.engine import TRAINER_REGISTRY
from torch import nn

from models.conditional_prompts import ConditionalCLIP, ConditionalPrompts
from models.tokenizer import tokenizer_of
from trainers.base import CLIPTrainer
from trainers.settings import Run, Settings


@dataclass(frozen=True)
class CoCoOpSettings(Settings):
    """Keys of TRAINER.COCOOP."""

    N_CTX: int = 16
    CTX_INIT: str = ""

    def faults(self) -> list[str]:
        """What is wrong, a sentence each."""
        return super().faults() + self.below(1, "N_CTX")


@TRAINER_REGISTRY.register()
class CoCoOp(CLIPTrainer):
    """Conditional prompt learning (Zhou et al., CVPR 2022, https://arxiv.org/abs/2203.05557)."""

    node = "COCOOP"
    settings_class = CoCoOpSettings

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: CoCoOpSettings, run: Run
    ) -> ConditionalCLIP:
        """CLIP with prompts that each image shifts."""
        prompts = ConditionalPrompts(
            class_names,
            clip.token_embedding,
            clip.text_projection.shape[1],
            n_ctx=settings.N_CTX,
            ctx_init=settings.CTX_INIT,
            tokenizer=tokenizer_of(clip),
        )
        return ConditionalCLIP(clip, prompts)
