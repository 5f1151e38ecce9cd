"""KgCoOp: CoOp whose text features stay near those of a fixed sentence.

Source: Yao et al., CVPR 2023, https://arxiv.org/abs/2303.13283, section 3.2, equation 5
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from yacs.config import CfgNode

from datasets.base import template
from models.classifier import Images
from models.prompts import PromptLearner
from trainers.base import register
from trainers.coop import CoOp, CoOpModel, CoOpSettings, coop_prompts
from trainers.settings import BuildContext
from trainers.templates import one_each


@dataclass(frozen=True)
class KgCoOpSettings(CoOpSettings):
    """Keys of TRAINER.COOP, and W beside them."""

    W: float = 8.0  # weighs the distance to the sentence
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = ("W",)

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        return super().problems() + self.at_least(0, "W")


class KgCoOpModel(CoOpModel):
    """CLIP with learned prompts that are held near a sentence for each class."""

    def __init__(
        self, clip: nn.Module, prompts: PromptLearner, sentences: list[str], weight: float
    ) -> None:
        super().__init__(clip, prompts)
        self.register_buffer("fixed", self.text.encode(sentences), persistent=False)  # (C, D)
        self.weight = weight

    def regularisers(
        self, image: Images, cls: Tensor, text: Float[Tensor, "C D"], logits: Tensor
    ) -> dict[str, Float[Tensor, ""]]:
        """W (1 - mean over classes of the cosine between learned and fixed text feature)."""
        return {"kg": self.weight * (1 - (text * self.fixed).sum(-1).mean())}


@register
class KgCoOp(CoOp):
    """Knowledge-guided context optimisation."""

    settings_class = KgCoOpSettings

    @classmethod
    def extend_cfg(cls, cfg: CfgNode) -> None:
        """CoOp's keys, which are there already, and W."""
        cfg.TRAINER[cls.node].W = cls.settings_class.W

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: Any, run: BuildContext
    ) -> KgCoOpModel:
        """CoOp's prompts beside the sentence of the data set."""
        prompts = coop_prompts(clip, class_names, settings)
        fixed = one_each(template(run.cfg.DATASET.NAME), class_names)
        return KgCoOpModel(clip, prompts, fixed, settings.W)
