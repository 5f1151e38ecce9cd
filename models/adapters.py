"""Zero-shot CLIP, and beside it what features of training pictures say of their classes.

The logits are a weighted sum of CLIP's own and of an adapter's part. The weights are fitted to
training pictures that an adapter has not seen, as those of a Spotlighter head are (fit.py).
B pictures, C classes, N training pictures, V views of each, D joint width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from models.class_names import OfClasses, match_names
from models.classifier import ZeroShotCLIP
from models.clip.blocks import full_precision
from models.fit import (
    ROUNDS,
    TINY,
    Judged,
    choose,
    deal_classes,
    deal_shots,
    fit_offset,
    fit_weights,
)

# With one shot nothing can be held out: the part's weight in units of its spread, beside CLIP's
# logits as they are. Spotlighter's global level has the same.
ONE_SHOT = 0.5


class Features(NamedTuple):
    """Class tokens of all training pictures."""

    views: Float[Tensor, "V N D"]  # of augmented views, as the tower gives them
    plain: Float[Tensor, "N D"]  # of the pictures themselves, unit length
    label: Int[Tensor, " N"]


class Evidence(NamedTuple):
    """Training pictures of some classes, dealt into folds."""

    features: Features  # labels count these classes
    text: Float[Tensor, "C D"]
    base: Float[Tensor, "N C"]  # CLIP's logits
    fold: Int[Tensor, " N"]  # -1: in no fold
    classes: Int[Tensor, " C"]  # among those of the run
    number: Int[Tensor, " C"]  # training pictures of each, those that are no evidence included


class Side(NamedTuple):
    """What an adapter computes without a picture; kept while evaluating."""

    table: tuple[Tensor, ...]  # of the listed classes, for `Adapter.part`
    base: Float[Tensor, ""]  # weight of CLIP's logits
    part: Float[Tensor, " C"]  # weight of the part
    offset: Float[Tensor, " C"]  # of classes without pictures, beside others that have some


class Halved(NamedTuple):
    """What is said where half of the classes stand for new ones."""

    group: Int[Tensor, " C2"]  # that half
    beside: Bool[Tensor, " N"]  # the pictures that judge it among all classes
    part: Float[Tensor, "N C"]  # of all pictures


class Adapter(OfClasses):
    """The part of the logits that training pictures say; its numbers are saved, most as buffers.

    Until it is filled and fitted, the logits are CLIP's.
    """

    by_class: tuple[str, ...] = ("count",)

    def __init__(self, class_names: list[str], like: Float[Tensor, "C D"]) -> None:
        """Nothing seen; `like` has the kind of number and the width of the features."""
        super().__init__()
        self.class_names = list(class_names)
        self.register_buffer("count", torch.zeros(len(class_names), dtype=torch.long))
        alone = like.new_tensor([1.0, 0.0])  # of CLIP's logits, of the part
        self.register_buffer("weights", alone)
        self.register_buffer("new_weights", alone.clone())  # where no listed class has pictures
        self.register_buffer("new_offset", like.new_zeros(()))

    def fill(self, features: Features) -> None:
        """Take in the training pictures; subclasses add theirs."""
        self.count.copy_(torch.bincount(features.label, minlength=len(self.count)))

    def table(
        self, text: Float[Tensor, "C2 D"], index: Int[Tensor, " C2"]
    ) -> tuple[Tensor, ...]:
        """What `part` needs of listed classes; `index` is -1 for one without pictures."""
        raise NotImplementedError

    def part(self, cls: Float[Tensor, "B D"], table: tuple[Tensor, ...]) -> Float[Tensor, "B C2"]:
        """What the training pictures say of each listed class."""
        raise NotImplementedError

    def held_out(self, evidence: Evidence) -> Iterator[tuple[Any, Float[Tensor, "N C"]]]:
        """For each option the part of the pictures, each without those of its own fold."""
        raise NotImplementedError

    def take(self, option: Any) -> None:
        """Take one of the options of `held_out`, or of `search`."""

    def fit_new(self, evidence: Evidence) -> None:
        """Fit the weights of classes without pictures, where the method says something of them."""

    def fit_offset(self, evidence: Evidence, halved: Sequence[Halved]) -> None:
        """Fit the offset of new classes, from halves of the classes that stand for such.

        Each is judged by the pictures beside it, among all classes. docs/method.md, section 6.
        """
        if not halved:
            return
        label, found = evidence.features.label, []
        every = torch.arange(len(evidence.text), device=label.device)
        for group, beside, part in halved:
            is_new = torch.isin(every, group).expand_as(part)
            weight = torch.where(is_new, self.new_weights[1], self.weights[1])
            logits = self.weights[0] * evidence.base + weight * part
            found.append((logits[beside], is_new[beside], label[beside]))
        logits, is_new, label = map(torch.cat, zip(*found, strict=True))
        self.new_offset.fill_(fit_offset(logits, is_new.to(logits), label))

    def search(
        self, cls: Float[Tensor, "B D"], label: Int[Tensor, " B"], base: Float[Tensor, "B C"]
    ) -> None:
        """The published choice on validation pictures, of all classes of the run."""
        raise NotImplementedError

    def side(self, text: Float[Tensor, "C2 D"], class_names: list[str]) -> Side:
        """The side of any class list, seen in training or not."""
        index = torch.tensor(match_names(class_names, self.class_names), device=text.device)
        seen = (index >= 0) & (self.count[index] > 0)
        table = self.table(text, torch.where(seen, index, -1))
        weights = torch.where(seen.any(), self.weights, self.new_weights)
        part = torch.where(seen, self.weights[1], self.new_weights[1])
        offset = torch.where(seen | ~seen.any(), 0, self.new_offset)
        return Side(table, weights[0], part, offset)

    def mix(
        self, base: Float[Tensor, "B C2"], cls: Float[Tensor, "B D"], side: Side
    ) -> Float[Tensor, "B C2"]:
        """The logits; with the weights 1 and 0 they are CLIP's to the bit."""
        return side.base * base + side.part * self.part(cls, side.table) + side.offset

    def set_weights(self, part: float) -> None:
        """Weights as published: CLIP's logits as they are, and the part's."""
        self.weights.copy_(self.weights.new_tensor([1.0, part]))

    def summary(self) -> str:
        """What was chosen, for the log."""
        own, new = (
            ", ".join(f"{weight:.3g}" for weight in weights.tolist())
            for weights in (self.weights, self.new_weights)
        )
        found = f"weights of CLIP's logits and of the part: {own}"
        return found if new == "1, 0" else f"{found}; of classes without pictures: {new}"

    def fit(self, evidence: Evidence) -> None:
        """Fit the weights, and choose among the options, by the likelihood of held-out pictures."""
        judged, found = evidence.fold >= 0, []
        if not judged.any():
            self.fit_one_shot(evidence)
            return
        label = evidence.features.label[judged]
        for option, part in self.held_out(evidence):
            parts = torch.stack([evidence.base, part], -1)[judged]
            found.append((fit_weights([Judged(parts, label)]), option))
        best, option = min(found, key=lambda one: one[0].nll)
        self.take(option)
        if best.weights.any():  # else nothing is likelier than chance: CLIP is left as it is
            self.weights.copy_(best.weights)

    def fit_one_shot(self, evidence: Evidence) -> None:
        """Weights without evidence: CLIP's logits as they are, and some of the part's spread."""
        table = self.table(evidence.text, evidence.classes)
        part = self.part(evidence.features.plain, table)
        spread = (part - part.mean(1, keepdim=True)).square().mean().sqrt()
        if spread > TINY:
            self.weights[1] = ONE_SHOT / spread


def halves(evidence: Evidence) -> list[tuple[Int[Tensor, " _"], Bool[Tensor, " N"]]]:
    """Halves of two or more classes, and the pictures that judge each beside the other.

    These are one fold, which what is judged must not have seen; with one shot all pictures.
    """
    fold, classes = evidence.fold, len(evidence.text)
    folds = int(fold.max()) + 1
    groups = deal_classes(classes, ROUNDS, seed=0) if classes > 1 else []
    return [
        (group.to(fold.device), fold == n % folds if folds else torch.ones_like(fold).bool())
        for n, group in enumerate(groups)
    ]


class AdaptedCLIP(ZeroShotCLIP):
    """Zero-shot CLIP with an adapter, which is `learned`."""

    learned: Adapter

    def __init__(
        self, clip: nn.Module, class_sentences: list[list[str]], class_names: list[str]
    ) -> None:
        """CLIP as it is; `adapt` adds the adapter."""
        super().__init__(clip, class_sentences)
        self.class_names = list(class_names)
        self._side: Side | None = None

    def adapt(self, adapter: Adapter) -> AdaptedCLIP:
        """Take an adapter; returns the model."""
        self.learn(adapter)
        return self

    def classify(
        self, cls: Float[Tensor, "B D"], text: Float[Tensor, "C D"]
    ) -> Float[Tensor, "B C"]:
        """CLIP's logits, and what the adapter says beside them; float32."""
        base = super().classify(cls, text)
        with full_precision(cls):
            if self._side is None:
                self._side = self.learned.side(text, self.class_names)
            return self.learned.mix(base, cls, self._side)

    def clear_cache(self, *_: object) -> None:
        """Drop what was kept for an evaluation."""
        super().clear_cache()
        self._side = None

    @torch.no_grad()
    def fill(self, features: Features) -> None:
        """Fill the adapter."""
        with full_precision(features.plain):
            self.learned.fill(features)
        self.clear_cache()

    @torch.no_grad()
    def fit(self, features: Features) -> None:
        """Fit the weights of the filled adapter by cross-fitting on the same pictures."""
        evidence = self.evidence(features)
        with full_precision(features.plain):
            self.learned.fit(evidence)
            self.learned.fit_new(evidence)
        self.clear_cache()

    def evidence(self, features: Features) -> Evidence:
        """The pictures that count as evidence (`choose`), and CLIP's logits of them."""
        label, classes = choose(features.label)
        chosen = label >= 0
        own = Features(features.views[:, chosen], features.plain[chosen], label[chosen])
        fold, number = deal_shots(own.label), torch.bincount(features.label)[classes]
        if (fold >= 0).sum() < len(classes):  # too few to say anything: as with one shot
            fold.fill_(-1)
        text = self.fixed[classes]
        return Evidence(own, text, super().classify(own.plain, text), fold, classes, number)

    @torch.no_grad()
    def search(self, cls: Float[Tensor, "B D"], label: Int[Tensor, " B"]) -> None:
        """Choose the weights of the filled adapter on validation pictures, as published."""
        base = super().classify(cls, self.fixed)
        with full_precision(cls):
            self.learned.search(cls, label, base)
        self.clear_cache()
