"""PromptSRC: prompts of both towers, kept close to plain CLIP and averaged over epochs.

Source: PromptSRC (Khattak et al., ICCV 2023), section 3, https://arxiv.org/abs/2307.06948
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.classifier import Images
from models.clip.blocks import full_precision, unit
from runs.average import gaussian_weights
from trainers.base import CLIPTrainer, register
from trainers.ivlp import IndependentPrompts, IVLPModel, IVLPSettings, independent_prompts
from trainers.settings import BuildContext
from trainers.templates import DIVERSE, one_each


@dataclass(frozen=True)
class PromptSRCSettings(IVLPSettings):
    """Keys of TRAINER.PROMPTSRC."""

    N_CTX_VISION: int = 4
    N_CTX_TEXT: int = 4
    TEXT_LOSS_WEIGHT: float = 25.0
    IMAGE_LOSS_WEIGHT: float = 10.0
    GPA_MEAN: float = 15.0
    GPA_STD: float = 1.0
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = (
        "TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT", "GPA_MEAN", "GPA_STD",
    )

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        found = super().problems() + self.at_least(0, "TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT")
        if self.GPA_STD <= 0:
            found.append(f"GPA_STD must be above 0, got {self.GPA_STD}")
        return found


class PromptSRCModel(IVLPModel):
    """IVLP, kept close to plain CLIP (with many sentences) in its features and predictions."""

    node = "PROMPTSRC"

    def __init__(
        self,
        clip: nn.Module,
        prompts: IndependentPrompts,
        sentences: list[list[str]],  # for each template those of all classes
        *,
        text_weight: float,  # of the L1 distance of text features
        image_weight: float,  # of that of image features
    ) -> None:
        super().__init__(clip, prompts)
        self.sentences, self.weights = sentences, (text_weight, image_weight)
        self._plain_text: Tensor | None = None

    def plain_text(self) -> Float[Tensor, "C D"]:
        """Plain CLIP's text features, unit length of the mean over templates; computed once."""
        if self._plain_text is None:
            with full_precision(self.logit_scale):
                by_template = [self.text.encode_raw(texts) for texts in self.sentences]
                self._plain_text = unit(torch.stack(by_template).mean(0))
        return self._plain_text

    def regularisers(
        self, image: Images, cls: Tensor, text: Tensor, logits: Tensor
    ) -> dict[str, Float[Tensor, ""]]:
        """L1 to plain CLIP's features of both sides, and the divergence from its predictions."""
        with torch.no_grad():
            plain_cls = self.visual(image).unit().cls  # without prompts
        plain_text = self.plain_text()
        plain_logits = self.classify(plain_cls, plain_text)
        divergence = F.kl_div(
            logits.log_softmax(-1), plain_logits.log_softmax(-1), reduction="sum", log_target=True
        )
        return {
            "text": self.weights[0] * F.l1_loss(text, plain_text),
            "image": self.weights[1] * F.l1_loss(cls, plain_cls),
            "logits": divergence / logits.numel(),
        }


@register
class PromptSRC(CLIPTrainer):
    """Self-regulating prompts."""

    node = "PROMPTSRC"
    settings_class = PromptSRCSettings
    takes_head = True
    checkpoint_name = "VLPromptLearner"

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: PromptSRCSettings, run: BuildContext
    ) -> PromptSRCModel:
        """Both towers with prompts, beside plain CLIP with 60 sentences a class."""
        return PromptSRCModel(
            clip, independent_prompts(clip, class_names, settings),
            [one_each(template, class_names) for template in DIVERSE],
            text_weight=settings.TEXT_LOSS_WEIGHT, image_weight=settings.IMAGE_LOSS_WEIGHT,
        )

    @classmethod
    def epoch_weights(cls, settings: PromptSRCSettings, epochs: int) -> Tensor:
        """Gaussian prompt aggregation: the result is a mean over epochs."""
        return gaussian_weights(epochs, settings.GPA_MEAN, settings.GPA_STD)
