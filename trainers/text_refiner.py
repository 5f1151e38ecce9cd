"""TextRefiner on CoOp: text features read from a memory of local image features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dassl.engine import TRAINER_REGISTRY
from torch import nn
from yacs.config import CfgNode

from models.text_refiner import LocalMemory, RefinedPrompts, TextRefinedCLIP
from models.tokenizer import tokenizer_of
from trainers.base import CLIPTrainer
from trainers.coop import CoOp
from trainers.settings import Run, Settings, read_settings

MOMENTUM = 0.8  # fixed in the published code


@dataclass(frozen=True)
class TextRefinerSettings(Settings):
    """Keys of TRAINER.TF; the context's own keys stay under TRAINER.COOP."""

    BALANCE: float = 50.0
    DISTILL: float = 20.0
    MEMORY_SIZE: int = 25
    ALPHA: float = 0.2
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = ("BALANCE", "DISTILL")

    def faults(self) -> list[str]:
        """What is wrong, a sentence each."""
        found = super().faults() + self.below(1, "MEMORY_SIZE")
        return found + self.below(0, "BALANCE", "DISTILL", "ALPHA")


@TRAINER_REGISTRY.register()
class TextRefiner(CLIPTrainer):
    """TextRefiner with CoOp's prompts (Xie et al., AAAI 2025, https://arxiv.org/abs/2412.08176)."""

    node = "TF"
    settings_class = TextRefinerSettings

    def check_cfg(self, cfg: CfgNode) -> None:
        """Check this trainer's keys and CoOp's."""
        super().check_cfg(cfg)
        self.context = context = read_settings(cfg, CoOp.node, CoOp.settings_class)
        if context.CSC or context.CLASS_TOKEN_POSITION != "end":
            raise ValueError(
                "TextRefiner has one context for all classes, before the name: TRAINER.COOP.CSC "
                f"must be False, got {context.CSC}, and CLASS_TOKEN_POSITION end, got "
                f"{context.CLASS_TOKEN_POSITION}"
            )

    def settings_read(self) -> dict[str, Settings]:
        """CoOp's, too."""
        return super().settings_read() | {CoOp.node: self.context}

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: TextRefinerSettings, run: Run
    ) -> TextRefinedCLIP:
        """CLIP with CoOp's prompts and the memory."""
        context, joint = run.cfg.TRAINER.COOP, clip.text_projection.shape[1]
        memory = LocalMemory(
            joint, size=settings.MEMORY_SIZE, alpha=settings.ALPHA, momentum=MOMENTUM
        )
        prompts = RefinedPrompts(
            class_names,
            clip.token_embedding,
            joint=joint,
            memory=memory,
            n_ctx=context.N_CTX,
            ctx_init=context.CTX_INIT,
            tokenizer=tokenizer_of(clip),
        )
        return TextRefinedCLIP(clip, prompts, balance=settings.BALANCE, distill=settings.DISTILL)
