"""MaPLe: prompts of both towers, coupled, in their first blocks.

Source: MaPLe (Khattak et al., CVPR 2023), section 3.2, https://arxiv.org/abs/2210.03117
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from models.classifier import CLIPClassifier
from models.clip.blocks import deep_prompts, unit
from models.clip.image_tower import (
    VisualEncoder,
    VisualTokens,
    encode_with_prompts,
    require_blocks,
    require_vit,
)
from models.clip.prune import Pruner
from models.clip.tokenizer import tokenizer_of
from models.prompts import PromptLearner, random_prompts
from trainers.base import CLIPTrainer, register
from trainers.settings import BuildContext, Settings, context_of_words


@dataclass(frozen=True)
class MaPLeSettings(Settings):
    """Keys of TRAINER.MAPLE."""

    N_CTX: int = 2
    CTX_INIT: str = "a photo of a"
    PROMPT_DEPTH: int = 9

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        return super().problems() + self.at_least(1, "N_CTX", "PROMPT_DEPTH")


class MultiModalPrompts(PromptLearner):
    """A context, deeper contexts, and linear maps that turn each into prompts of the image tower.

    Learned beside `ctx` (M, W): `proj`, W -> Wv; of the J - 1 deeper layers `compound_prompts_text`
    (M, W) and `compound_prompt_projections`, W -> Wv, all equal at the start.
    """

    def __init__(
        self,
        class_names: list[str],
        token_embedding: nn.Embedding,
        *,
        vision_width: int,
        depth: int,
        **options: Any,
    ) -> None:
        """Build the prompts of a class list.

        Args:
            class_names: C names.
            token_embedding: CLIP's own, frozen.
            vision_width: Wv, of the image tower.
            depth: J, blocks with prompts of their own in both towers, at least 1.
            options: see `PromptLearner`; one context for all classes, before the name.
        """
        super().__init__(class_names, token_embedding, **options)
        n_ctx, width = self.ctx.shape
        self.proj = nn.Linear(width, vision_width)
        self.compound_prompts_text = deeper = random_prompts(depth - 1, n_ctx, width)
        layer = nn.Linear(width, vision_width)
        self.compound_prompt_projections = nn.ModuleList(copy.deepcopy(layer) for _ in deeper)

    def vision(self) -> list[Float[Tensor, "M Wv"]]:
        """Prompts of the image tower's blocks 0, 1, ..."""
        pairs = zip(self.compound_prompt_projections, self.compound_prompts_text, strict=True)
        return [self.proj(self.ctx), *(layer(prompt) for layer, prompt in pairs)]


class MaPLeModel(CLIPClassifier):
    """CLIP with coupled prompts in both towers."""

    learns_images = True
    visual: VisualEncoder

    def __init__(self, clip: nn.Module, prompts: MultiModalPrompts) -> None:
        """Put the prompts on the towers.

        Raises:
            ValueError: the image tower is no ViT, or a tower has fewer blocks than prompts.
        """
        super().__init__(clip)
        depth = len(prompts.compound_prompts_text) + 1
        require_blocks(self.visual, depth, "MAPLE.PROMPT_DEPTH")
        require_blocks(self.text, depth, "MAPLE.PROMPT_DEPTH")
        self.learn(prompts)

    def encode_tower(
        self, image: Tensor, patch_path: str | None, pruner: Pruner | None
    ) -> VisualTokens:
        """The image tower with the prompts behind the patches."""
        return encode_with_prompts(self.visual, self.learned.vision(), image, patch_path, pruner)

    def encode_text(self, cls: Float[Tensor, "B D"] | None = None) -> Float[Tensor, "C D"]:
        """The text tower with the deeper contexts at the places of the first."""
        prompts = self.learned
        seam = deep_prompts(list(prompts.compound_prompts_text), prompts.places)
        return unit(self.text(prompts(), seam)[0])


@register
class MaPLe(CLIPTrainer):
    """Multi-modal prompt learning."""

    node = "MAPLE"
    settings_class = MaPLeSettings
    takes_head = True
    checkpoint_name = "MultiModalPromptLearner"

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: MaPLeSettings, run: BuildContext
    ) -> MaPLeModel:
        """CLIP with coupled prompts in both towers."""
        prompts = MultiModalPrompts(
            class_names,
            clip.token_embedding,
            vision_width=require_vit(clip.visual).conv1.out_channels,
            depth=settings.PROMPT_DEPTH,
            tokenizer=tokenizer_of(clip),
            **context_of_words(settings.N_CTX, settings.CTX_INIT),
        )
        return MaPLeModel(clip, prompts)
