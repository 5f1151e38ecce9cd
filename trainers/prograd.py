"""ProGrad: CoOp whose gradient steps do not go against what CLIP knows.

Source: Zhu et al., ICCV 2023, https://arxiv.org/abs/2205.14865, section 3.2, equation 5
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from yacs.config import CfgNode

from datasets.base import template
from models.classifier import General
from models.clip.tokenizer import normalise_name, tokenizer_of
from models.prompts import PromptLearner
from trainers.base import register
from trainers.coop import CoOp, CoOpModel, CoOpSettings, coop_prompts
from trainers.settings import BuildContext
from trainers.templates import one_each


def project(
    strength: float, gradient: Float[Tensor, "*shape"], general: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Take the part that opposes `general` out of a gradient: all of it if `strength` is 1.

    A general gradient of 0 changes nothing; one that is not finite gives one that is not.
    """
    direction = F.normalize(general.flatten(), dim=0, eps=torch.finfo(general.dtype).tiny)
    opposed = (gradient.flatten() @ direction).clamp(max=0)
    return gradient - strength * opposed * direction.view_as(gradient)


def prograd_prompts(
    clip: nn.Module, class_names: list[str], settings: CoOpSettings
) -> PromptLearner:
    """CoOp's prompts; words (CTX_INIT) start the last of N_CTX vectors, the others start at 0.

    Raises ValueError for more words than there are vectors.
    """
    words, tokenizer = normalise_name(settings.CTX_INIT), tokenizer_of(clip)
    count = tokenizer.count(words)
    if count > settings.N_CTX:
        raise ValueError(
            f"TRAINER.COOP.CTX_INIT {words!r} has {count} tokens, more than the N_CTX "
            f"{settings.N_CTX} context vectors of ProGrad; take more of these or fewer words"
        )
    if count in (0, settings.N_CTX):
        return coop_prompts(clip, class_names, settings)
    prompts = coop_prompts(clip, class_names, replace(settings, CTX_INIT="", CSC=False))
    ids = torch.tensor(tokenizer.words(words), device=prompts.ctx.device)
    with torch.no_grad():
        prompts.ctx.zero_()[-count:] = clip.token_embedding(ids)
    return prompts


class ProGradModel(CoOpModel):
    """CLIP with learned prompts, and plain CLIP's predictions beside them."""

    def __init__(
        self, clip: nn.Module, prompts: PromptLearner, sentences: list[str], *,
        temperature: float, strength: float,
    ) -> None:
        super().__init__(clip, prompts)
        self.register_buffer("fixed", self.text.encode(sentences), persistent=False)  # (C, D)
        self.temperature, self.strength = temperature, strength

    def general(self, cls: Float[Tensor, "B D"], logits: Float[Tensor, "B C"]) -> General:
        """T^2 times the cross-entropy of the predictions to plain CLIP's, both at temperature T."""
        known = (self.classify(cls, self.fixed) / self.temperature).softmax(-1)
        loss = self.temperature**2 * F.cross_entropy(logits / self.temperature, known)
        return General(loss, partial(project, self.strength))


@register
class ProGrad(CoOp):
    """Prompt-aligned gradient."""

    @classmethod
    def extend_cfg(cls, cfg: CfgNode) -> None:
        """CoOp's keys are there already; beside TRAINER stands the published node LOSS.

        LAMBDA is the share of an opposing part that is taken out, T the temperature.
        """
        cfg.LOSS = CfgNode({"NAME": "prograd", "LAMBDA": 1.0, "T": 1.0})

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: Any, run: BuildContext
    ) -> ProGradModel:
        """CoOp's prompts beside the sentence of the data set."""
        prompts = prograd_prompts(clip, class_names, settings)
        fixed = one_each(template(run.cfg.DATASET.NAME), class_names)
        loss = run.cfg.LOSS
        return ProGradModel(clip, prompts, fixed, temperature=loss.T, strength=loss.LAMBDA)
