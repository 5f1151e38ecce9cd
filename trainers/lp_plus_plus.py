"""LP++: a linear probe beside CLIP's text features, blended class by class.

Source: Huang, Shakeri et al., CVPR 2024, https://arxiv.org/abs/2404.02285
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.class_weights import ClassVectors, ClassWeightsModel
from models.clip.blocks import full_precision, unit
from runs import rng
from trainers.adapters import AdapterTrainer
from trainers.base import register
from trainers.settings import BuildContext, Settings
from trainers.templates import of_adapters, sentences

logger = logging.getLogger(__name__)

SELECTS = ("last", "val")


@dataclass(frozen=True)
class LPPlusPlusSettings(Settings):
    """Keys of TRAINER.LPPLUSPLUS."""

    PREC: str = "fp32"
    STEPS: int = 300  # on all training pictures at once
    EVERY: int = 10  # steps of the weights to one of alpha
    MOMENTUM: float = 0.9  # of the weights' steps
    INIT_ALPHA: float = 250.0  # alpha at the beginning, times mean <f, t> of the pictures' classes
    SELECT: str = "last"  # the step that is kept: the last, or the best on validation pictures
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = (
        "STEPS", "EVERY", "MOMENTUM", "INIT_ALPHA", "SELECT",
    )

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        found = super().problems() + self.at_least(1, "STEPS", "EVERY")
        found += self.at_least(0, "MOMENTUM", "INIT_ALPHA")
        return found + self.one_of(SELECTS, "SELECT")


class Probe(NamedTuple):
    """A linear classifier whose weights are w_c + alpha_c t_c."""

    weight: Float[Tensor, "C D"]
    alpha: Float[Tensor, " C"]
    bias: Float[Tensor, " C"]

    def logits(self, f: Float[Tensor, "N D"], text: Float[Tensor, "C D"]) -> Float[Tensor, "N C"]:
        """Logits of unit-length features."""
        return f @ (self.weight + self.alpha.unsqueeze(1) * text).T + self.bias


def step_sizes(
    f: Float[Tensor, "N D"], text: Float[Tensor, "C D"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Of the weights, and of alpha: bounds of the loss's curvature in each block."""
    of_alpha = (f @ text.T).square().sum(0).max()
    return 4 * len(f) / torch.linalg.eigvalsh(f.T @ f)[-1], len(f) / (4 * of_alpha)


def descend(
    f: Float[Tensor, "N D"], label: Int[Tensor, " N"], text: Float[Tensor, "C D"],
    settings: LPPlusPlusSettings,
) -> Iterator[Probe]:
    """The probe after each step on the mean cross-entropy.

    The weights start at the sums of each class's features. The gradient of alpha is summed over
    all steps so far.
    """
    own, by_text = F.one_hot(label, len(text)).to(f), f @ text.T  # (N, C) each
    count = own.sum(0)
    own_text = (own * by_text).sum(0)[count > 0] / count[count > 0]
    alpha = torch.full_like(count, settings.INIT_ALPHA) * own_text.mean()
    probe = Probe(own.T @ f, alpha, torch.zeros_like(alpha))
    rate, alpha_rate = step_sizes(f, text)
    move, bias_move, slope = (torch.zeros_like(x) for x in (probe.weight, alpha, alpha))
    for step in range(1, settings.STEPS + 1):
        error = (probe.logits(f, text).softmax(-1) - own) / len(f)  # (N, C)
        move = settings.MOMENTUM * move + error.T @ f
        bias_move = settings.MOMENTUM * bias_move + error.sum(0)
        slope = slope + (error * by_text).sum(0)
        alpha = probe.alpha - alpha_rate * slope if step % settings.EVERY == 0 else probe.alpha
        probe = Probe(probe.weight - rate * move, alpha, probe.bias - rate * bias_move)
        yield probe


class ProbeVectors(ClassVectors):
    """What a probe has for each class. Before it is fitted it is zero-shot CLIP."""

    by_class = (*ClassVectors.by_class, "alpha", "bias")

    def __init__(self, class_names: list[str], text: Float[Tensor, "C D"]) -> None:
        super().__init__(class_names, text)
        nn.init.zeros_(self.weight)
        self.alpha = nn.Parameter(text.new_zeros(len(text)))
        self.bias = nn.Parameter(text.new_zeros(len(text)))


class LPPlusPlusModel(ClassWeightsModel):
    """A linear probe. Classes that were not in training have CLIP's logits."""

    vectors = ProbeVectors

    def __init__(
        self, clip: nn.Module, class_names: list[str], class_sentences: list[list[str]]
    ) -> None:
        super().__init__(clip, class_names, class_sentences, unit_length=True)
        nn.init.constant_(self.learned.alpha, self.scale.item())

    def class_features(self) -> Float[Tensor, "C D"]:
        """(w_c + alpha_c t_c) over CLIP's logit scale, which `classify` multiplies with."""
        learned = self.learned
        return (learned.weight + learned.alpha.unsqueeze(1) * learned.text) / self.scale

    def classify(
        self, cls: Float[Tensor, "B D"], text: Float[Tensor, "C D"]
    ) -> Float[Tensor, "B C"]:
        """The logits f (w_c + alpha_c t_c) + b_c, float32."""
        bias = self.listed(self.learned.bias, torch.zeros_like(self.fixed[:, 0]))
        return super().classify(cls, text) + (bias if self.rows is None else bias[self.rows])

    @torch.no_grad()
    def fit(
        self, f: Float[Tensor, "N D"], label: Int[Tensor, " N"], settings: LPPlusPlusSettings,
        validation: tuple[Tensor, Tensor] | None = None,
    ) -> int:
        """Fit to unit-length features; returns the step that is kept, from 1 on.

        It is the last one, or that with the most hits on `validation`, features and labels; of
        equal ones the last, as published.
        """
        text, most, kept, found = self.learned.text, -1, 0, None
        with full_precision(f):
            for step, probe in enumerate(descend(f, label, text, settings), 1):
                hits = 0
                if validation is not None:
                    hits = int((probe.logits(validation[0], text).argmax(1) == validation[1]).sum())
                if hits >= most:
                    most, kept, found = hits, step, probe
        for name, value in found._asdict().items() if found else ():
            getattr(self.learned, name).copy_(value)
        self.clear_cache()
        return kept


@register
class LPPlusPlus(AdapterTrainer):
    """A linear probe whose step sizes follow from the features."""

    node = "LPPLUSPLUS"
    settings_class = LPPlusPlusSettings
    model: Any

    @classmethod
    def build(  # type: ignore[override]
        cls, clip: nn.Module, class_names: list[str], settings: Any, run: BuildContext
    ) -> LPPlusPlusModel:
        """CLIP with the data set's sentence, for ImageNet the mean of seven."""
        templates = of_adapters(run.cfg.DATASET.NAME)
        return LPPlusPlusModel(clip, class_names, sentences(templates, class_names))

    @torch.no_grad()
    def _compute(self, select: str) -> None:
        """Fit to one augmented view of each training picture; no random state is changed."""
        began, settings = time.perf_counter(), self.settings
        self.set_model_mode("eval")
        with rng.seeded(max(0, self.cfg.SEED)):
            cls, label = self.training_features(augmented=True)
        validation = self.validation() if select == "val" else None
        step = self.model.fit(unit(cls), label, settings, validation)
        alpha = self.model.learned.alpha
        logger.info(
            "LPPlusPlus computed in %.1f s; step %d of %d (SELECT %s), alpha from %.3g to %.3g",
            *(time.perf_counter() - began, step, settings.STEPS, select),
            *(alpha.min().item(), alpha.max().item()),
        )
