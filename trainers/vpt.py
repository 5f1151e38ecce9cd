"""VPT: prompts of the image tower are learned; the sentences are fixed.

Source: VPT (Jia et al., ECCV 2022), https://arxiv.org/abs/2203.12119, as in MaPLe's comparison
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from models.classifier import ZeroShotCLIP
from models.clip.image_tower import require_blocks, require_vit
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


class VPTModel(ZeroShotCLIP):
    """Fixed sentences, and prompts in the image tower: `vision`, one (M, Wv) for each block."""

    learns_images = True

    def __init__(
        self, clip: nn.Module, vision: nn.ParameterList, class_sentences: list[list[str]]
    ) -> None:
        super().__init__(clip, class_sentences)
        require_blocks(self.visual, len(vision), "VPT.PROMPT_DEPTH_VISION")
        self.learn(nn.ModuleDict({"vision": vision}))

    def image_prompts(self) -> list[Float[Tensor, "M Wv"]]:
        """The learned ones."""
        return list(self.learned.vision)


@register
class VPT(CLIPTrainer):
    """Visual prompt tuning on CLIP."""

    node = "VPT"
    settings_class = VPTSettings

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: VPTSettings, run: BuildContext
    ) -> VPTModel:
        """The image tower with prompts."""
        width = require_vit(clip.visual).conv1.out_channels
        words = normalise_name(settings.CTX_INIT)
        sentences = [[f"{words} {normalise_name(name)}.".lstrip()] for name in class_names]
        vision = random_prompts(settings.PROMPT_DEPTH_VISION, settings.N_CTX_VISION, width)
        return VPTModel(clip, vision, sentences)
