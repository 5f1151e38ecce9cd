"""ZSLP: a linear probe that starts at zero-shot CLIP. CLAP: it is held near, class by class.

Source: Silva-Rodriguez et al., CVPR 2024, https://arxiv.org/abs/2312.12730, sections 4.1 and 4.2
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from yacs.config import CfgNode

from datasets.base import template
from models.class_weights import ClassVectors, ClassWeightsModel
from models.classifier import Images
from models.clip.blocks import unit
from runs import rng
from runs.features import training_features
from trainers.base import CLIPTrainer, register
from trainers.settings import BuildContext, Settings
from trainers.templates import SELECTED, sentences


@dataclass(frozen=True)
class ZSLPSettings(Settings):
    """Keys of TRAINER.ADAPTER, the published node; one value of INIT and ENHANCED_BASE is ours."""

    INIT: str = "ZS"  # the weights start at the text features
    ENHANCED_BASE: str = "none"
    UNIT: bool = False  # whether they start at unit length; in the published code at CLIP's own
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = ("INIT", "ENHANCED_BASE", "UNIT")

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        found = super().problems() + other_method("INIT", self.INIT, "ZS")
        return found + other_method("ENHANCED_BASE", self.ENHANCED_BASE, "none")


@dataclass(frozen=True)
class CLAPSettings(ZSLPSettings):
    """Keys of TRAINER.ADAPTER, and CONSTRAINT beside them."""

    CONSTRAINT: str = "l2"
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = (*ZSLPSettings.TRAINING_ONLY, "CONSTRAINT")

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        return super().problems() + other_method("CONSTRAINT", self.CONSTRAINT, "l2")


def other_method(key: str, value: str, own: str) -> list[str]:
    """A sentence where a published key asks for another method."""
    known = "the other methods of the published code are trainers of their own (docs/trainers.md)"
    return [] if value == own else [f"{key} must be {own}, got {value!r}: {known}"]


@register
class ZSLP(CLIPTrainer):
    """Linear probe on image features; logits are scaled cosines, as those of zero-shot CLIP."""

    node = "ADAPTER"
    settings_class: type[Settings] = ZSLPSettings
    checkpoint_name = "adapter"
    new_classes = "zero-shot CLIP"
    takes_features = True
    model_class = ClassWeightsModel
    model: ClassWeightsModel

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: Any, run: BuildContext
    ) -> ClassWeightsModel:
        """The weights start at the text features."""
        by_class = sentences(templates(run.cfg.DATASET.NAME), class_names)
        return cls.model_class(clip, class_names, by_class, unit_length=settings.UNIT)

    def start_from(self, given: Path) -> None:
        """Take over weights of the same classes; ValueError for other classes."""
        super().start_from(given)
        if self.model.learned.class_names != self.model.class_names:
            raise ValueError(
                f"{given} (MODEL.INIT_WEIGHTS) holds weights of other classes than this run's; "
                "start from a run on the same classes, or leave MODEL.INIT_WEIGHTS out"
            )


def templates(dataset: str) -> tuple[str, ...]:
    """The data set's own; ImageNet has the selected ones, too, as published: eight."""
    return (*SELECTED, template(dataset)) if dataset == "ImageNet" else (template(dataset),)


class HeldVectors(ClassVectors):
    """Class vectors, and how much each is held near its class's text feature."""

    by_class = (*ClassVectors.by_class, "multipliers")

    def __init__(self, class_names: list[str], text: Float[Tensor, "C D"]) -> None:
        super().__init__(class_names, text)
        self.register_buffer("multipliers", text.new_zeros(len(text)))


class CLAPModel(ClassWeightsModel):
    """Class weights that are held near the text features, the more, the more CLIP knows a class."""

    vectors = HeldVectors

    @torch.no_grad()
    def set_multipliers(self, pictures: Iterable[tuple[Tensor, Tensor]]) -> None:
        """lambda_c, from unit-length features (B, D) of training pictures and their labels (B).

        It is the mean probability of class c among its own pictures under zero-shot CLIP, and 0
        for a class without pictures. It stays as it is while the weights are learned.
        """
        learned = self.learned
        total, count = (torch.zeros_like(learned.multipliers) for _ in range(2))
        for cls, label in pictures:
            share = self.classify(cls, unit(learned.text)).softmax(-1)  # (B, C)
            own = share.gather(1, label.unsqueeze(1)).squeeze(1).to(total.dtype)
            total.index_add_(0, label, own)
            count.index_add_(0, label, torch.ones_like(own))
        learned.multipliers.copy_(total / count.clamp(min=1))

    def regularisers(
        self, image: Images, cls: Tensor, text: Tensor, logits: Tensor
    ) -> dict[str, Float[Tensor, ""]]:
        """Mean over classes of lambda_c |w_c - t_c|^2."""
        learned = self.learned
        distance = (learned.weight - learned.text).square().sum(-1)  # (C,)
        return {"clap": (learned.multipliers * distance).mean()}


@register
class CLAP(ZSLP):
    """Class-adaptive linear probe."""

    settings_class = CLAPSettings
    model_class = CLAPModel
    model: CLAPModel

    @classmethod
    def extend_cfg(cls, cfg: CfgNode) -> None:
        """The linear probe's keys, which are there already, and CONSTRAINT."""
        cfg.TRAINER[cls.node].CONSTRAINT = cls.settings_class.CONSTRAINT

    def before_training(self) -> None:
        """Set the multipliers; a run that goes on has those of its checkpoint."""
        if self.start_epoch == 0:
            self.learn_on_rank0(self._set_multipliers)

    def _set_multipliers(self) -> None:
        self.set_model_mode("eval")
        with rng.unchanged():
            self.model.set_multipliers(self.features())

    @torch.no_grad()
    def features(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Features of the training pictures and their labels.

        They are those of all views that training goes round, as published (FEATURES.VIEWS), else of
        the pictures as the test would see them.
        """
        device, loader = self.device, self.train_loader_x
        if self.cfg.FEATURES.VIEWS:
            for view in loader.views:
                yield unit(view.tokens.cls).to(device), view.label.to(device)
            return
        for image, label in training_features(self.cfg, self.state, self.model):
            with self.state.precision.autocast():
                yield self.model.encode_image(image).cls, label
