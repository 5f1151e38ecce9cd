"""MaPLe: prompts of both towers, coupled, in their first blocks.

Source: MaPLe (Khattak et al., CVPR 2023), section 3.2, https://arxiv.org/abs/2210.03117
"""

import copy
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from models.classifier import CLIPClassifier
from models.clip.blocks import deep_prompts, unit
from models.clip.image_tower import require_blocks, require_vit
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

    Learned: `ctx` (M, W); `proj`, W -> Wv; of the J - 1 deeper blocks `compound_prompts_text`
    (M, W) and `compound_prompt_projections`, W -> Wv, all equal at the start.
    """

    def __init__(
        self,
        class_names: list[str],
        token_embedding: nn.Embedding,
        *,
        vision_width: int,  # Wv
        depth: int,  # J, blocks with prompts in both towers, at least 1
        **options: Any,
    ) -> None:
        super().__init__(class_names, token_embedding, **options)
        n_ctx, width = self.ctx.shape
        self.proj = nn.Linear(width, vision_width)
        self.compound_prompts_text = deeper = random_prompts(depth - 1, n_ctx, width)
        layer = nn.Linear(width, vision_width)
        self.compound_prompt_projections = nn.ModuleList(copy.deepcopy(layer) for _ in deeper)


class MaPLeModel(CLIPClassifier):
    """CLIP with coupled prompts in both towers."""

    learns_images = True

    def __init__(self, clip: nn.Module, prompts: MultiModalPrompts) -> None:
        super().__init__(clip)
        depth = len(prompts.compound_prompts_text) + 1
        require_blocks(self.visual, depth, "MAPLE.PROMPT_DEPTH")
        require_blocks(self.text, depth, "MAPLE.PROMPT_DEPTH")
        self.learn(prompts)

    def image_prompts(self) -> list[Float[Tensor, "M Wv"]]:
        """Each context, through its linear map."""
        own = self.learned
        pairs = zip(own.compound_prompt_projections, own.compound_prompts_text, strict=True)
        return [own.proj(own.ctx), *(layer(prompt) for layer, prompt in pairs)]

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
            class_names, clip.token_embedding,
            vision_width=require_vit(clip.visual).conv1.out_channels, depth=settings.PROMPT_DEPTH,
            tokenizer=tokenizer_of(clip), **context_of_words(settings.N_CTX, settings.CTX_INIT),
        )
        return MaPLeModel(clip, prompts)
