"""VPT: prompts of the image tower, beside fixed sentences.

Source: VPT (Jia et al., ECCV 2022), https://arxiv.org/abs/2203.12119, as MaPLe compares with it
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from models.classifier import ZeroShotCLIP
from models.clip.image_tower import (
    VisualEncoder,
    VisualTokens,
    encode_with_prompts,
    require_blocks,
    require_vit,
)
from models.clip.prune import Pruner
from models.clip.tokenizer import normalise_name
from models.prompts import random_prompts
from trainers.base import CLIPTrainer, register
from trainers.settings import BuildContext, Settings


@dataclass(frozen=True)
class VPTSettings(Settings):
    """Keys of TRAINER.VPT."""

    N_CTX_VISION: int = 2
    CTX_INIT: str = "a photo of a"  # stands before each class name, and is not learned
    PROMPT_DEPTH_VISION: int = 1

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        return super().problems() + self.at_least(1, "N_CTX_VISION", "PROMPT_DEPTH_VISION")


class VisualPrompts(nn.Module):
    """Prompts `vision` of the image tower, one (M, Wv) for each of the blocks 0, 1, ..."""

    def __init__(self, depth: int, shape: tuple[int, int]) -> None:
        """Start at random: `depth` prompts (0 or more) of the shape (M, Wv)."""
        super().__init__()
        self.vision = random_prompts(depth, *shape)


class VPTModel(ZeroShotCLIP):
    """CLIP with fixed sentences and prompts in the image tower."""

    learns_images = True
    visual: VisualEncoder

    def __init__(
        self, clip: nn.Module, prompts: VisualPrompts, class_sentences: list[list[str]]
    ) -> None:
        """Put the prompts on the image tower.

        Raises:
            ValueError: the image tower is no ViT, or has fewer blocks than prompts.
        """
        super().__init__(clip, class_sentences)
        require_blocks(self.visual, len(prompts.vision), "VPT.PROMPT_DEPTH_VISION")
        self.learn(prompts)

    def encode_tower(
        self, image: Tensor, patch_path: str | None, pruner: Pruner | None
    ) -> VisualTokens:
        """The image tower with its prompts."""
        return encode_with_prompts(self.visual, self.learned.vision, image, patch_path, pruner)


@register
class VPT(CLIPTrainer):
    """Visual prompt tuning on CLIP."""

    node = "VPT"
    settings_class = VPTSettings

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: VPTSettings, run: BuildContext
    ) -> VPTModel:
        """CLIP with prompts in the image tower."""
        shape = (settings.N_CTX_VISION, require_vit(clip.visual).conv1.out_channels)
        words = normalise_name(settings.CTX_INIT)
        sentences = [[f"{words} {normalise_name(name)}.".lstrip()] for name in class_names]
        prompts = VisualPrompts(settings.PROMPT_DEPTH_VISION, shape)
        return VPTModel(clip, prompts, sentences)
