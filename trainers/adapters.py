"""What methods share that compute a part of the logits from training pictures, and weigh it.

Features are class tokens of the frozen image tower, computed once; text is a fixed sentence.
"""

import logging
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from yacs.config import CfgNode

from models.adapters import AdaptedCLIP, Adapter, Features
from models.classifier import Images
from models.clip.blocks import at_least_float32, unit
from runs import data, features, health, rng
from trainers.base import CLIPTrainer
from trainers.settings import BuildContext, Settings
from trainers.templates import of_adapters, sentences

logger = logging.getLogger(__name__)

# How the mixing weights are chosen: by cross-fitting on the training pictures, by the published
# search on validation pictures, or as the config says.
SELECTS = ("cross", "val", "off")


@dataclass(frozen=True)
class AdapterSettings(Settings):
    """Keys that these methods share."""

    PREC: str = "fp32"
    VIEWS: int = 10  # augmented views of each training picture
    SELECT: str = "cross"
    ALPHA: float = 1.0  # weight of the part with SELECT off
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = ("VIEWS", "SELECT", "ALPHA")

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        found = super().problems() + self.at_least(1, "VIEWS") + self.at_least(0, "ALPHA")
        return found + self.one_of(SELECTS, "SELECT")


class AdapterTrainer(CLIPTrainer):
    """Computes an adapter from the training pictures."""

    computed = takes_features = True
    new_classes = "zero-shot CLIP"
    model: AdaptedCLIP

    @classmethod
    def adapter(
        cls, class_names: list[str], like: Float[Tensor, "C D"], pictures: int, settings: Any
    ) -> Adapter:
        """The adapter of the method, for so many training pictures."""
        raise NotImplementedError

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: Any, run: BuildContext
    ) -> AdaptedCLIP:
        """CLIP with the data set's sentence, for ImageNet the mean of seven, and an adapter."""
        templates = of_adapters(run.cfg.DATASET.NAME)
        model = AdaptedCLIP(clip, sentences(templates, class_names), class_names)
        pictures = len(getattr(run.dataset, "train_x", None) or ())
        return model.adapt(cls.adapter(class_names, model.fixed, pictures, settings))

    def check_cfg(self, cfg: CfgNode) -> None:
        """Refuse to begin with what another run has learned, too."""
        super().check_cfg(cfg)
        if cfg.MODEL.INIT_WEIGHTS:
            raise ValueError(
                f"MODEL.INIT_WEIGHTS is what training begins with, and {cfg.TRAINER.NAME} computes "
                "all that it learns from the training pictures; leave it out"
            )

    def before_training(self) -> None:
        """Refuse a search without validation pictures."""
        if self.settings.SELECT == "val" and not data.has_own_val(self.dm.dataset):
            raise ValueError(
                f"TRAINER.{self.node}.SELECT val searches on validation pictures, and "
                f"{self.cfg.DATASET.NAME} has none apart from its test pictures; SELECT "
                f"{type(self.settings).SELECT} uses the training pictures alone"
            )

    def end_of_training(self) -> None:
        """Compute the adapter."""
        self.compute(self.settings.SELECT)

    def compute(self, select: str) -> None:
        """Fill the adapter and choose its weights."""
        self.learn_on_rank0(lambda: self._compute(select))

    @torch.no_grad()
    def _compute(self, select: str) -> None:
        """No random state is changed."""
        began, model = time.perf_counter(), self.model
        self.set_model_mode("eval")
        with rng.seeded(max(0, self.cfg.SEED)):
            found = self.features()
        model.fill(found)
        if select == "cross":
            model.fit(found)
        elif select == "val":
            model.search(*self.validation())
        else:
            model.learned.set_weights(self.settings.ALPHA)
        self.log(f"computed in {time.perf_counter() - began:.1f} s")

    def log(self, what: str) -> None:
        """Say what was done, and which weights there are now."""
        summary = self.model.learned.summary()
        name, select = self.cfg.TRAINER.NAME, self.settings.SELECT
        logger.info("%s %s; %s (SELECT %s)", name, what, summary, select)

    def features(self) -> Features:
        """Class tokens of the training pictures and of augmented views of them."""
        plain, label = self.training_features(augmented=False)
        views = [self.training_features(augmented=True)[0] for _ in range(self.settings.VIEWS)]
        if any(len(view) != len(plain) for view in views):
            raise ValueError(
                f"{len(plain)} training pictures could be read at first, and then another number; "
                "pictures must not change while features are computed"
            )
        return Features(torch.stack(views), unit(plain), label)

    def training_features(
        self, *, augmented: bool
    ) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
        """Class tokens as the tower gives them, and labels."""
        cfg, state = self.cfg, self.state
        pictures = features.training_features(cfg, state, self.model, augmented=augmented)
        cls, label = together([(self.encode(image), label) for image, label in pictures])
        health.require_finite_features(cls, state.precision.name)
        return cls, label

    def validation(self) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
        """Unit-length class tokens of the validation pictures, and labels."""
        batches = (data.readable(self.cfg, self.state, b, "val") for b in self.val_loader)
        pictures = (data.to_device(batch, self.state) for batch in batches if len(batch["img"]))
        cls, label = together([(self.encode(image), label) for image, label in pictures])
        return unit(cls), label

    def encode(self, image: Images) -> Float[Tensor, "B D"]:
        """Class tokens as the tower gives them, float32."""
        with self.state.precision.autocast():
            return at_least_float32(self.model.encode_raw(image).cls)


def together(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Batches of two columns, one behind the other."""
    first, second = zip(*batches, strict=True)
    return torch.cat(first), torch.cat(second)
