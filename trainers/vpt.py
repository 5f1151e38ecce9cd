"""VPT: prompts of the image tower, beside fixed sentences."""

from __future__ import annotations

from dataclasses import dataclass

from dassl.engine import TRAINER_REGISTRY
from torch import nn

from models.independent_prompts import VisualPromptedCLIP, VisualPrompts
from models.tokenizer import normalise_name
from models.visual_encoder import require_vit
from trainers.base import CLIPTrainer
from trainers.settings import Run, Settings


@dataclass(frozen=True)
class VPTSettings(Settings):
    """Keys of TRAINER.VPT."""

    N_CTX_VISION: int = 2
    CTX_INIT: str = "a photo of a"  # stands before each class name, and is not learned
    PROMPT_DEPTH_VISION: int = 1

    def faults(self) -> list[str]:
        """What is wrong, a sentence each."""
        return super().faults() + self.below(1, "N_CTX_VISION", "PROMPT_DEPTH_VISION")


@TRAINER_REGISTRY.register()
class VPT(CLIPTrainer):
    """Visual prompt tuning (Jia et al., ECCV 2022, https://arxiv.org/abs/2203.12119) on CLIP."""

    node = "VPT"
    settings_class = VPTSettings

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: VPTSettings, run: Run
    ) -> VisualPromptedCLIP:
        """CLIP with prompts in the image tower."""
        shape = (settings.N_CTX_VISION, require_vit(clip.visual).conv1.out_channels)
        words = normalise_name(settings.CTX_INIT)
        sentences = [[f"{words} {normalise_name(name)}.".lstrip()] for name in class_names]
        prompts = VisualPrompts(settings.PROMPT_DEPTH_VISION, shape)
        return VisualPromptedCLIP(clip, prompts, sentences)
