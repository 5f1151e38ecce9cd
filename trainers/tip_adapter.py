"""Tip-Adapter and Tip-Adapter-F: training pictures that look like a picture vote for classes.

Source: Zhang et al., ECCV 2022, https://arxiv.org/abs/2207.09519, sections 3.1 and 3.2
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.adapters import Adapter, Evidence, Features, Halved, halves
from models.clip.blocks import unit
from trainers.adapters import AdapterSettings, AdapterTrainer
from trainers.base import register

LEAST = 0.1  # where the published search begins
EPSILON = 1e-4  # of AdamW; its default is 1e-8
BETAS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.5, 8.0, 11.0, 16.0, 22.0, 32.0)  # that cross-fitting tries


@dataclass(frozen=True)
class TipAdapterSettings(AdapterSettings):
    """Keys of TRAINER.TIPADAPTER and TRAINER.TIPADAPTERF.

    ALPHA and BETA are the paper's choice on ImageNet. With SELECT val, K is trained beside them.
    """

    BETA: float = 5.5  # sharpness with SELECT off, and with one shot
    # Of SELECT val: the largest beta and alpha, and how many are tried; published for Caltech101.
    SEARCH_SCALE: tuple[float | int, ...] = (12.0, 5.0)
    SEARCH_STEP: tuple[float | int, ...] = (200, 20)
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = (
        *AdapterSettings.TRAINING_ONLY, "BETA", "SEARCH_SCALE", "SEARCH_STEP",
    )

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        found = super().problems() + self.at_least(0, "BETA")
        if min(self.SEARCH_SCALE) <= LEAST:
            found.append(f"SEARCH_SCALE must be above {LEAST}, got {self.SEARCH_SCALE}")
        if not all(type(steps) is int and steps > 0 for steps in self.SEARCH_STEP):
            found.append(f"SEARCH_STEP must be two whole numbers from 1 on, got {self.SEARCH_STEP}")
        return found


def grid(most: float | int, steps: float | int) -> list[float]:
    """What the published search tries, the largest excluded."""
    return [LEAST + i * (most - LEAST) / steps for i in range(int(steps))]


def sharpened(cosine: Float[Tensor, "*shape"], beta: Float[Tensor, ""] | float) -> Tensor:
    """exp(-beta (1 - cosine)): 1 for equal features."""
    return (-beta * (1 - cosine)).exp()


def votes_of_others(
    evidence: Evidence,
) -> Callable[[Float[Tensor, ""] | float], Float[Tensor, "N C"]]:
    """By beta: votes of the other folds, times all pictures of a class over those that vote."""
    features, fold = evidence.features, evidence.fold
    cosine = features.plain @ unit(features.views.mean(0)).T  # (N, N)
    every = torch.arange(len(evidence.text), device=fold.device)
    own = (features.label.unsqueeze(1) == every).to(cosine)  # (N, C)
    others = (fold.unsqueeze(1) != fold).to(cosine)  # (N, N)
    scale = evidence.number / (others @ own).clamp_min(1)  # (N, C)
    return lambda beta: scale * ((others * sharpened(cosine, beta)) @ own)


class Cache(Adapter):
    """The features of the training pictures, K (N, D), and their classes.

    part_c = sum over the pictures i of class c of exp(-beta (1 - <f, K_i>)).
    """

    def __init__(
        self, class_names: list[str], like: Float[Tensor, "C D"], pictures: int,
        settings: TipAdapterSettings, *, trained: bool,
    ) -> None:
        """No pictures yet; `trained`: K is learned in steps from its start."""
        super().__init__(class_names, like)
        self.settings = settings
        keys = like.new_zeros(pictures, like.shape[1])
        if trained:
            self.keys = nn.Parameter(keys)
        else:
            self.register_buffer("keys", keys)
        self.register_buffer("label", torch.full((pictures,), -1))  # -1: could not be read
        self.register_buffer("beta", like.new_tensor(settings.BETA))

    def fill(self, features: Features) -> None:
        """K: the unit-length means over the views."""
        super().fill(features)
        read = len(features.label)
        self.label.fill_(-1)
        self.label[:read] = features.label
        self.keys.zero_()
        self.keys[:read] = unit(features.views.mean(0))

    def table(
        self, text: Float[Tensor, "C2 D"], index: Int[Tensor, " C2"]
    ) -> tuple[Float[Tensor, "N C2"]]:
        """1 where a training picture is of a listed class."""
        return (self.is_of(index),)

    def is_of(self, index: Int[Tensor, " C2"]) -> Float[Tensor, "N C2"]:
        """1 where a training picture is of a class."""
        return ((self.label.unsqueeze(1) == index) & (index >= 0)).to(self.keys)

    def part(
        self, cls: Float[Tensor, "B D"], table: tuple[Tensor, ...]
    ) -> Float[Tensor, "B C2"]:
        """The votes of the training pictures."""
        return sharpened(cls @ self.keys.T, self.beta) @ table[0]

    def held_out(self, evidence: Evidence) -> Iterator[tuple[float, Float[Tensor, "N C"]]]:
        """Votes of the other folds, by beta."""
        votes = votes_of_others(evidence)
        for beta in BETAS:
            yield beta, votes(beta)

    def fit_new(self, evidence: Evidence) -> None:
        """Nobody votes for classes without pictures; beside others their offset makes up for it."""
        if (evidence.fold >= 0).any():
            votes = votes_of_others(evidence)(self.beta)
        else:
            table = self.table(evidence.text, evidence.classes)
            votes = self.part(evidence.features.plain, table)
        every = torch.arange(len(evidence.text), device=votes.device)
        self.fit_offset(evidence, [
            Halved(group, beside, votes.masked_fill(torch.isin(every, group), 0))
            for group, beside in halves(evidence)
        ])

    def take(self, option: Any) -> None:
        """Take a beta."""
        self.beta.fill_(option)

    def search(
        self, cls: Float[Tensor, "B D"], label: Int[Tensor, " B"], base: Float[Tensor, "B C"]
    ) -> None:
        """The first pair of beta and alpha with the best accuracy."""
        cosine, values = cls @ self.keys.T, self.is_of(torch.arange(len(self.count)).to(label))
        betas, alphas = map(grid, self.settings.SEARCH_SCALE, self.settings.SEARCH_STEP)
        best = -1
        for beta in betas:
            part = sharpened(cosine, beta) @ values
            for alpha in alphas:
                hits = int(((base + alpha * part).argmax(1) == label).sum())
                if hits > best:
                    best = hits
                    self.take(beta)
                    self.set_weights(alpha)

    def summary(self) -> str:
        """The weights, and beta."""
        return f"{super().summary()}; beta {self.beta:.3g}"


@register
class TipAdapter(AdapterTrainer):
    """A cache of training features beside zero-shot CLIP."""

    node = "TIPADAPTER"
    settings_class = TipAdapterSettings

    @classmethod
    def adapter(
        cls, class_names: list[str], like: Float[Tensor, "C D"], pictures: int, settings: Any
    ) -> Cache:
        """An empty cache, whose K is trained if the method is not computed."""
        return Cache(class_names, like, pictures, settings, trained=not cls.computed)


@register
class TipAdapterF(TipAdapter):
    """The cache, its K trained in steps; weights and beta are chosen before, by a search after."""

    node = "TIPADAPTERF"
    computed = False

    def parameter_groups(self) -> list[dict[str, Any]]:
        """K; with the published epsilon, where the optimiser has one."""
        return [{"params": [self.model.learned.keys], "eps": EPSILON}]

    def before_training(self) -> None:
        """Fill the cache, and choose what holds in training; a run that goes on has both."""
        super().before_training()
        if self.start_epoch == 0:
            self.compute("cross" if self.settings.SELECT == "cross" else "off")

    def end_of_training(self) -> None:
        """Search with the trained K, as published, if that is asked for."""
        if self.settings.SELECT == "val":
            self.learn_on_rank0(self.search)

    def search(self) -> None:
        """Choose weights and beta on validation pictures."""
        self.set_model_mode("eval")
        with torch.no_grad():
            self.model.search(*self.validation())
        self.log("trained")
