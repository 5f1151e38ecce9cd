"""IVLP: prompts of both towers, learned independently. The baseline of MaPLe.

Source: MaPLe (Khattak et al., CVPR 2023), section 4.1, https://arxiv.org/abs/2210.03117
"""

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
class IVLPSettings(Settings):
    """Keys of TRAINER.IVLP."""

    N_CTX_VISION: int = 2
    N_CTX_TEXT: int = 2
    CTX_INIT: str = "a photo of a"
    PROMPT_DEPTH_VISION: int = 9
    PROMPT_DEPTH_TEXT: int = 9

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        found = super().problems() + self.at_least(1, "N_CTX_TEXT", "PROMPT_DEPTH_TEXT")
        found += self.at_least(0, "PROMPT_DEPTH_VISION")
        # Without prompts in the image tower their number does not count; a published yaml says 0.
        return found + self.at_least(1 if self.PROMPT_DEPTH_VISION > 0 else 0, "N_CTX_VISION")


class IndependentPrompts(PromptLearner):
    """A context, contexts of deeper text blocks, and prompts of the image tower's blocks.

    Learned beside `ctx` (M, W): `text_deeper`, one (M, W) for each of the blocks 1, 2, ...;
    `vision`, one (Mv, Wv) for each of the blocks 0, 1, ...
    """

    def __init__(
        self,
        class_names: list[str],
        token_embedding: nn.Embedding,
        *,
        depths: tuple[int, int],
        vision_shape: tuple[int, int],  # (Mv, Wv)
        **options: Any,
    ) -> None:
        """`depths`: blocks with prompts, image (0 or more) and text tower (1 or more)."""
        super().__init__(class_names, token_embedding, **options)
        self.text_deeper = random_prompts(depths[1] - 1, *self.ctx.shape)
        self.vision = random_prompts(depths[0], *vision_shape)


def independent_prompts(
    clip: nn.Module, class_names: list[str], settings: IVLPSettings
) -> IndependentPrompts:
    """The prompts that IVLP and PromptSRC learn."""
    return IndependentPrompts(
        class_names, clip.token_embedding,
        depths=(settings.PROMPT_DEPTH_VISION, settings.PROMPT_DEPTH_TEXT),
        vision_shape=(settings.N_CTX_VISION, require_vit(clip.visual).conv1.out_channels),
        tokenizer=tokenizer_of(clip), **context_of_words(settings.N_CTX_TEXT, settings.CTX_INIT),
    )


class IVLPModel(CLIPClassifier):
    """CLIP with independent prompts in both towers."""

    learns_images = True
    node = "IVLP"  # of TRAINER, for error messages

    def __init__(self, clip: nn.Module, prompts: IndependentPrompts) -> None:
        super().__init__(clip)
        require_blocks(self.visual, len(prompts.vision), f"{self.node}.PROMPT_DEPTH_VISION")
        require_blocks(self.text, len(prompts.text_deeper) + 1, f"{self.node}.PROMPT_DEPTH_TEXT")
        self.learn(prompts)

    def image_prompts(self) -> list[Float[Tensor, "M Wv"]]:
        """The learned ones."""
        return list(self.learned.vision)

    def encode_text(self, cls: Float[Tensor, "B D"] | None = None) -> Float[Tensor, "C D"]:
        """The text tower with the deeper contexts at the places of the first."""
        prompts = self.learned
        seam = deep_prompts(list(prompts.text_deeper), prompts.places)
        return unit(self.text(prompts(), seam)[0])


@register
class IVLP(CLIPTrainer):
    """Independent vision-language prompts. With PROMPT_DEPTH_VISION 0: deep language prompting."""

    node = "IVLP"
    settings_class = IVLPSettings
    checkpoint_name = "VLPromptLearner"

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: IVLPSettings, run: BuildContext
    ) -> IVLPModel:
        """Both towers with prompts."""
        return IVLPModel(clip, independent_prompts(clip, class_names, settings))
