"""GDA: each class is a Gaussian of features, all with one covariance; a closed form.

Source: Wang et al., A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation, ICLR 2024,
https://arxiv.org/abs/2402.04087. C classes, N training pictures, V views of each, D joint width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.adapters import Adapter, Evidence, Features, Halved, halves
from models.clip.blocks import unit
from models.fit import (
    CAUTION,
    LEAST_CLASSES,
    RIDGE,
    Judged,
    fit_weights,
    places,
)
from trainers.adapters import AdapterSettings, AdapterTrainer
from trainers.base import register

COVARIANCES = ("ridge", "mean")
NEAREST, COPIES = 64, 16  # training features near a text feature, and copies of it: a new class
ALPHAS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)  # of the published search


@dataclass(frozen=True)
class GDASettings(AdapterSettings):
    """Keys of TRAINER.GDA."""

    COVARIANCE: str = "ridge"  # published for few shots; mean: published for base to new
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = (*AdapterSettings.TRAINING_ONLY, "COVARIANCE")

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        return super().problems() + self.one_of(COVARIANCES, "COVARIANCE")


class Discriminant(NamedTuple):
    """part_c(f) = <f, weight_c> + bias_c; float64."""

    weight: Float[Tensor, "C D"]
    bias: Float[Tensor, " C"]


def class_means(
    x: Float[Tensor, "N D"], label: Int[Tensor, " N"], classes: int
) -> Float[Tensor, "C D"]:
    """The mean of each class; zero for one without pictures."""
    total = x.new_zeros(classes, x.shape[1]).index_add_(0, label, x)
    return total / torch.bincount(label, minlength=classes).clamp_min(1).unsqueeze(1)


def pseudo_inverse(matrix: Float[Tensor, "D D"]) -> Float[Tensor, "D D"]:
    """That of a symmetric matrix; what float32 cannot tell from 0 is 0, as published."""
    cut = len(matrix) * torch.finfo(torch.float32).eps
    return torch.linalg.pinv(matrix, rtol=cut, hermitian=True)


def inverse_covariance(
    x: Float[Tensor, "N D"], label: Int[Tensor, " N"], kind: str, number: int
) -> Float[Tensor, "D D"]:
    """The inverse of the covariance S within classes; x float64, without its class means.

    ridge: D ((n - 1) S + tr(S) I)^-1, for so many features n, of which `x` may be a part; mean: the
    pseudo-inverse of the mean of the classes' own covariances.
    """
    width = x.shape[1]
    if kind == "ridge":
        spread = x.T @ x / max(1, len(x) - 1)
        ridge = spread.trace() * torch.eye(width, dtype=x.dtype, device=x.device)
        return width * pseudo_inverse((number - 1) * spread + ridge)
    count = torch.bincount(label)
    free = (count[label] - 1).clamp_min(1).unsqueeze(1)
    return pseudo_inverse(x.T @ (x / free) / (count > 1).sum().clamp_min(1))


def of_means(
    mean: Float[Tensor, "C D"], inverse: Float[Tensor, "D D"], classes: int
) -> Discriminant:
    """W = S^-1 mu_c, b = log(1 / C) - mu_c S^-1 mu_c / 2."""
    weight = mean @ inverse
    half = (weight * mean).sum(1) / 2
    return Discriminant(weight, -torch.log(half.new_tensor(classes)) - half)


def discriminant(
    x: Float[Tensor, "N D"], label: Int[Tensor, " N"], classes: int, kind: str, number: int
) -> Discriminant:
    """Of the features of classes; `number` as in `inverse_covariance`."""
    x = x.double()
    mean = class_means(x, label, classes)
    return of_means(mean, inverse_covariance(x - mean[label], label, kind, number), classes)


def synthesised(x: Float[Tensor, "N D"], text: Float[Tensor, "C D"]) -> Discriminant:
    """Of classes without pictures, from training features of others.

    The 64 nearest features of a text feature t and 16 copies of t give mu. Their covariance is
    taken around t, and the mean over the classes of D ((k - 1) S + tr(S) I)^-1 is S^-1.
    """
    x, text = x.double(), text.double()
    near = x[(text @ x.T).topk(min(NEAREST, len(x)), dim=1).indices]  # (C, k, D)
    width, number = x.shape[1], near.shape[1]
    mean = (near.sum(1) + COPIES * text) / (number + COPIES)
    eye = torch.eye(width, dtype=x.dtype, device=x.device)
    inverse = torch.zeros_like(eye)
    for around in near - text.unsqueeze(1):  # (k, D); Woodbury's identity: k is below D
        ridge = around.square().sum() / max(1, number - 1)
        small = around @ around.T + ridge * torch.eye(number, dtype=x.dtype, device=x.device)
        inverse += (eye - around.T @ torch.linalg.solve(small, around)) / ridge
    return of_means(mean, width * inverse / len(text), len(text))


def centred(found: Discriminant, is_new: Bool[Tensor, " C"]) -> Discriminant:
    """The same, without the mean over the classes with pictures, and over those without."""
    weight, bias = found.weight.clone(), found.bias.clone()
    for kind in (is_new, ~is_new):
        if kind.any():
            weight[kind] -= weight[kind].mean(0)
            bias[kind] -= bias[kind].mean()
    return Discriminant(weight, bias)


class Gaussians(Adapter):
    """The discriminant of the classes, and the features from which new ones are made."""

    by_class = ("count", "weight", "bias")

    def __init__(
        self, class_names: list[str], like: Float[Tensor, "C D"], pictures: int,
        settings: GDASettings,
    ) -> None:
        super().__init__(class_names, like)
        self.covariance = settings.COVARIANCE
        self.register_buffer("weight", torch.zeros_like(like))
        self.register_buffer("bias", like.new_zeros(len(like)))
        number = pictures * settings.VIEWS
        self.register_buffer("features", like.new_zeros(number, like.shape[1]))
        self.register_buffer("label", torch.full((number,), -1))  # -1: could not be read

    def fill(self, features: Features) -> None:
        """The discriminant of all views."""
        super().fill(features)
        x, label = views_of(features)
        self.features.zero_()
        self.features[: len(x)] = x
        self.label.fill_(-1)
        self.label[: len(x)] = label
        found = discriminant(x, label, len(self.count), self.covariance, len(x))
        self.weight.copy_(found.weight)
        self.bias.copy_(found.bias)

    def table(
        self, text: Float[Tensor, "C2 D"], index: Int[Tensor, " C2"]
    ) -> tuple[Float[Tensor, "C2 D"], Float[Tensor, " C2"]]:
        """The discriminant of listed classes; of those without pictures a synthesised one."""
        is_new = index < 0
        weight, bias = self.weight[index].double(), self.bias[index].double()
        if is_new.any():
            weight[is_new], bias[is_new] = 0.0, 0.0
        if is_new.any() and self.new_weights[1] != 0:
            made = synthesised(self.features[self.label >= 0], text[is_new])
            weight[is_new], bias[is_new] = made
        found = centred(Discriminant(weight, bias), is_new)
        return found.weight.to(text.dtype), found.bias.to(text.dtype)

    def part(self, cls: Float[Tensor, "B D"], table: tuple[Tensor, ...]) -> Float[Tensor, "B C2"]:
        """The logarithm of each class's density, but for what all classes share."""
        weight, bias = table
        return cls @ weight.T + bias

    def set_weights(self, part: float) -> None:
        """The published weights; new classes have them, too."""
        super().set_weights(part)
        self.new_weights.copy_(self.weights)

    def judge(
        self, evidence: Evidence, known: Bool[Tensor, " N"], new: Int[Tensor, " G"]
    ) -> Float[Tensor, "N C"]:
        """What Gaussians of some pictures say of all pictures; `new` classes are synthesised."""
        features, classes = evidence.features, len(evidence.text)
        own = Features(features.views[:, known], features.plain[known], features.label[known])
        x, label = views_of(own)
        number = len(features.views) * int(evidence.number.sum())
        found = discriminant(x, label, classes, self.covariance, number)
        is_new = torch.zeros_like(evidence.number, dtype=torch.bool)
        is_new[new] = True
        if len(new):
            made = synthesised(x, evidence.text[new])
            found.weight[new], found.bias[new] = made.weight, made.bias
        weight, bias = centred(found, is_new)
        return (features.plain.double() @ weight.T + bias).to(features.plain.dtype)

    def held_out(self, evidence: Evidence) -> Iterator[tuple[None, Float[Tensor, "N C"]]]:
        """Each fold by the Gaussians of the others."""
        fold, part = evidence.fold, torch.zeros_like(evidence.base)
        for number in range(int(fold.max()) + 1):
            part[fold == number] = self.judge(evidence, fold != number, fold[:0])[fold == number]
        yield None, part

    def fit_new(self, evidence: Evidence) -> None:
        """Fit new classes' weights, and their offset beside others, to halves held out.

        As Spotlighter's (docs/method.md, section 6): four times the classes are halved at random.
        Each half is judged among itself without pictures of it, and one fold among all classes;
        with one shot every picture.
        """
        label, classes = evidence.features.label, len(evidence.text)
        halved, judged = [], []
        for group, beside in halves(evidence):
            away = torch.isin(label, group)
            part = self.judge(evidence, ~away & ~(beside & (evidence.fold >= 0)), group)
            halved.append(Halved(group, beside, part))
            own = places(group, classes)[label[away]]
            judged.append(Judged(torch.stack([evidence.base, part], -1)[away][:, group], own))
        if classes >= LEAST_CLASSES:
            found = fit_weights(judged, [RIDGE, CAUTION]).weights
            if found[1] > 0:  # else nothing helps: CLIP's logits, as they are
                self.new_weights.copy_(found)
        self.fit_offset(evidence, halved)

    def search(
        self, cls: Float[Tensor, "B D"], label: Int[Tensor, " B"], base: Float[Tensor, "B C"]
    ) -> None:
        """The first alpha with the best accuracy."""
        part = cls @ self.weight.T + self.bias
        hits = [int(((base + alpha * part).argmax(1) == label).sum()) for alpha in ALPHAS]
        self.set_weights(ALPHAS[hits.index(max(hits))])


def views_of(features: Features) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
    """Unit-length features of all views, and their labels."""
    return unit(features.views).flatten(0, 1), features.label.repeat(len(features.views))


@register
class GDA(AdapterTrainer):
    """Gaussian discriminant analysis beside zero-shot CLIP."""

    node = "GDA"
    settings_class = GDASettings
    new_classes = "synthesis from the nearest training features"

    @classmethod
    def adapter(
        cls, class_names: list[str], like: Float[Tensor, "C D"], pictures: int, settings: Any
    ) -> Gaussians:
        """Gaussians without pictures."""
        return Gaussians(class_names, like, pictures, settings)
