"""Fill the bank, and fit the weights to pictures that a bank has not seen. docs/method.md, 2 and 6.

Three kinds of pictures are held out: shots of every class, classes, and both. For each a bank is
filled without them, and judges them. Features are computed once for all of these banks.
N pictures, C classes, K kept patches, D joint width, P parts of the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.clip.blocks import full_precision
from models.clip.image_tower import VisualTokens
from models.clip.prune import LinearDiscriminant, most_attended
from models.fit import (
    CAUTION,
    LEAST_CLASSES,
    RIDGE,
    ROUNDS,
    TINY,
    Fit,
    Judged,
    choose,
    deal_classes,
    deal_shots,
    fit_offset,
    fit_weights,
    places,
)
from models.spotlighter import CHOICES, KINDS, LEVELS
from models.spotlighter.head import TextSide, asked_for
from models.spotlighter.memory import PrototypeMemory, Written
from models.spotlighter.model import SpotlightedCLIP

AT_A_TIME = 32
# With one shot nothing can be held out: weights in units of each part's spread. With them the
# likelihood was above zero-shot CLIP's on each of three embedded sets.
ONE_SHOT = {"global": 0.5, "both": 0.25}

# Every training picture once, always in this order: unit-length features and labels of batches.
Pictures = Callable[[], Iterable[tuple[VisualTokens, Int[Tensor, " B"]]]]


class HeldOut(NamedTuple):
    """A bank that has not seen some pictures, and how it judges them."""

    memory: PrototypeMemory
    judges: Bool[Tensor, " N"]  # among the pictures of the evidence
    classes: Int[Tensor, " C2"]  # those that compete, among the classes of the evidence


@torch.no_grad()
def fill_and_fit(model: SpotlightedCLIP, pictures: Pictures, views: Sequence[Pictures]) -> None:
    """Fill the bank of a model from its training pictures and augmented views, and fit its weights.

    `views` have the pictures in the same order. The model must be in evaluation mode. Raises a
    ValueError if there are other pictures in a later pass than in the first.
    """
    written, direction = read(model, pictures, views)
    model.head.memory.fill(together(written), direction)
    Evidence(model, pictures, written, direction).fit()
    model.clear_cache()


def read(
    model: SpotlightedCLIP, pictures: Pictures, views: Sequence[Pictures]
) -> tuple[list[Written], Float[Tensor, " D"]]:
    """What the pictures and each of their views give to a bank, and the direction d."""
    statistics, labels = LinearDiscriminant(), []
    for tokens, label in pictures():
        patches, attention = asked_for(tokens)
        statistics.add(patches, most_attended(attention))
        labels.append(label)
    direction, label = statistics.direction(), torch.cat(labels)
    base, anchors = model.base, model.head.anchors
    text = anchors if base.text_depends_on_image else base.encode_text(anchors)
    passes = [counted(one, len(label)) for one in (pictures, *views)]
    return [write(model, one, label, direction, text) for one in passes], direction


def write(
    model: SpotlightedCLIP, pictures: Pictures, label: Int[Tensor, " N"],
    direction: Float[Tensor, " D"], text: Float[Tensor, "C D"],
) -> Written:
    """What one view of all pictures gives to a bank."""
    head, base, found = model.head, model.base, []
    for tokens, _ in pictures():
        with full_precision(tokens.cls):
            kept = head.keep_for_bank(tokens, direction, base.classify(tokens.cls, text), text)
        found.append((tokens.cls, kept.tokens, kept.weight))
    cls, kept, weight = map(torch.cat, zip(*found, strict=True))
    return Written(cls, kept, weight, label)


def together(views: Sequence[Written]) -> Written:
    """All views of the pictures, one behind the other."""
    return Written(*(torch.cat(column) for column in zip(*views, strict=True)))


class Evidence:
    """Some training pictures and their classes, judged by banks that have not seen them."""

    def __init__(
        self, model: SpotlightedCLIP, pictures: Pictures, written: list[Written],
        direction: Float[Tensor, " D"],
    ) -> None:
        self.model, self.head, self.direction = model, model.head, direction
        self.pictures = counted(pictures, len(written[0].label))
        label, self.classes = choose(written[0].label)
        self.chosen = label >= 0  # among all pictures
        self.label = label[self.chosen]  # of these, their classes among `classes`
        self.written = [one.of(self.chosen)._replace(label=self.label) for one in written]
        self.names = [self.head.class_names[c] for c in self.classes.tolist()]
        self.anchors = self.head.anchors[self.classes]
        base = model.base
        self.text = None if base.text_depends_on_image else base.encode_text(self.anchors)
        self.base_logits = torch.cat(
            [self.base_of(part) for part in self.written[0].cls.split(AT_A_TIME)]
        )

    def base_of(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, "B C"]:
        """The base's logits of the classes of the evidence."""
        text = self.model.base.encode_text(cls) if self.text is None else self.text
        return self.model.base.classify(cls, text[..., self.classes, :])

    def fit(self) -> None:
        """Fit the weights of classes with pictures, of those without, and the offset of these."""
        self.forget()
        fold = deal_shots(self.label)
        if (fold >= 0).sum() < len(self.classes):  # too few to say anything: as with one shot
            fold.fill_(-1)
        every = torch.arange(len(self.classes), device=fold.device)
        shots = [self.hold_out(fold == f, every) for f in range(int(fold.max()) + 1)]
        new, mixed = self.hold_out_halves(every, fold) if len(every) > 1 else ([], [])
        if len(every) < LEAST_CLASSES:  # a half of one class has no other to be taken for
            new = []
        self.fit_candidates(shots, new)
        self.fit_parts(shots, new)
        if mixed:
            self.fit_offsets(mixed)

    def hold_out_halves(
        self, among: Int[Tensor, " C2"], fold: Int[Tensor, " N"]
    ) -> tuple[list[HeldOut], list[HeldOut]]:
        """Banks of random halves of some classes, each without one fold of the shots.

        Returns:
            The banks with the other half of the classes to judge; and with the fold, among all.
            With one shot there is no fold: they judge every picture, and have seen one half.
        """
        outside, folds = ~torch.isin(self.label, among), int(fold.max()) + 1
        new, mixed = [], []
        for number, half in enumerate(deal_classes(len(among), ROUNDS, seed=0)):
            group = among[half.to(among.device)]
            away = torch.isin(self.label, group)
            beside = ~outside & (fold == number % folds if folds else torch.zeros_like(away))
            held = self.hold_out(outside | away | beside, among[~torch.isin(among, group)])
            new.append(held._replace(judges=away, classes=group))
            # As many pictures of each class: the offset must not follow from their numbers.
            mixed.append(held._replace(judges=beside if folds else ~outside, classes=among))
        return new, mixed

    def forget(self) -> None:
        """Set what is fitted to the base alone; what cannot be fitted stays so."""
        head = self.head
        for weights in (head.candidates, head.new_candidates, head.new_parts):
            weights.copy_(torch.eye(weights.shape[-1], device=weights.device)[0])
        head.new_offset.zero_()
        head.new_kind.zero_()

    def hold_out(self, out: Bool[Tensor, " N"], classes: Int[Tensor, " C2"]) -> HeldOut:
        """A bank of some classes, filled without some pictures, which it will judge."""
        names = [self.names[c] for c in classes.tolist()]
        slots = self.head.options.prototypes
        memory = PrototypeMemory(names, self.anchors[classes], num_prototypes=slots)
        memory = memory.to(self.anchors.device)
        place = places(classes, len(self.classes))
        parts = [one._replace(label=place[one.label]).of(~out) for one in self.written]
        memory.fill(together(parts), self.direction)
        return HeldOut(memory, out, classes)

    def side(self, held: HeldOut, new: str = "inherit") -> TextSide:
        """The text side of the classes that compete before a bank."""
        names = [self.names[c] for c in held.classes.tolist()]
        anchors = self.anchors[held.classes]
        text = anchors if self.text is None else self.text[self.classes[held.classes]]
        return self.head.side_of(held.memory, names, anchors, text, new)

    def fit_candidates(self, shots: list[HeldOut], new: list[HeldOut]) -> None:
        """Fit base and global level alone: they name the likely classes."""
        head = self.head
        if shots:
            found = self.fit_of([self.of_class_token(held, self.side(held)) for held in shots])
        else:
            found = self.one_shot(("global",))
        head.candidates.copy_(found.weights[:2])
        for kind in KINDS if new else ():
            self.fit_new_candidates(kind, new)

    def fit_new_candidates(self, kind: str, new: list[HeldOut], ridge: float = CAUTION) -> None:
        """The same for classes without pictures, whose prototypes are of one of `KINDS`."""
        judged = [self.of_class_token(held, self.side(held, kind)) for held in new]
        found = self.fit_of(judged, ridge).weights[:2]
        self.head.new_candidates[KINDS.index(kind)] = found.to(self.head.new_candidates)

    def of_class_token(self, held: HeldOut, side: TextSide) -> Judged:
        """Base and global level of the pictures that a bank judges."""
        rows = held.judges
        z_global = held.memory.cls_space(self.written[0].cls[rows]) @ side.rows.cls.T
        base = self.base_logits[rows][:, held.classes]
        return Judged(torch.stack([base, z_global], -1), self.label_of(held))

    def label_of(self, held: HeldOut) -> Int[Tensor, " B"]:
        """The true classes of the pictures that a bank judges, among those that compete."""
        return places(held.classes, len(self.classes))[self.label[held.judges]]

    def fit_parts(self, shots: list[HeldOut], new: list[HeldOut]) -> None:
        """Fit base and all levels; of the two kinds of prototypes `auto` takes the likelier."""
        head = self.head
        sides = [(held, self.side(held)) for held in shots]
        sides += [(held, self.side(held, kind)) for kind in KINDS for held in new]
        judged = self.judge(sides)
        found = self.fit_of(judged[: len(shots)]) if shots else self.one_shot(LEVELS)
        head.base.copy_(found.weights[0])
        head.level.copy_(found.weights[1:])
        losses = []
        for row, kind in enumerate(KINDS if new else ()):
            first = len(shots) + row * len(new)
            losses.append(self.fit_new_parts(kind, judged[first : first + len(new)]))
        if losses:
            head.new_kind.fill_(losses.index(min(losses)))

    def fit_new_parts(self, kind: str, judged: list[Judged], ridge: float = CAUTION) -> float:
        """Fit base and all levels for classes without pictures; the nll of the fit."""
        found, new_parts = self.fit_of(judged, ridge), self.head.new_parts
        weights = found.weights.to(new_parts)
        if not weights[1:].any():  # nothing helps: the base's logits, as they are
            weights = new_parts[CHOICES.index("off")]
        new_parts[KINDS.index(kind)] = weights
        return found.nll

    def fit_offsets(self, mixed: list[HeldOut]) -> None:
        """Fit what classes without pictures get beside others that have some, by `CHOICES`."""
        sides = [(held, self.side(held, kind)) for kind in CHOICES for held in mixed]
        logits, is_new, label = [], [], []
        for (_, side), one in zip(sides, self.judge(sides), strict=True):
            weight = side.weights.parts.T.unsqueeze(0)  # (1, C, P)
            logits.append((one.parts * weight).sum(-1))
            is_new.append((~side.bank.seen).to(one.parts).expand_as(logits[-1]))
            label.append(one.label)
        for row in range(len(CHOICES)):
            of_kind = slice(row * len(mixed), (row + 1) * len(mixed))
            found = (torch.cat(column[of_kind]) for column in (logits, is_new, label))
            self.head.new_offset[row] = fit_offset(*found)

    def judge(self, sides: list[tuple[HeldOut, TextSide]]) -> list[Judged]:
        """The parts of the logits of the pictures that each bank judges, in one pass over all."""
        found: list[list[Tensor]] = [[] for _ in sides]
        first = place = 0
        for tokens, _ in self.pictures():
            chosen = self.chosen[first : first + len(tokens.cls)]
            first += len(chosen)
            tokens = tokens.rows(chosen)
            here = slice(place, place + len(tokens.cls))
            place = here.stop
            for (held, side), parts in zip(sides, found, strict=True):
                rows = held.judges[here]
                if not rows.any():
                    continue
                base = self.base_logits[here][rows][:, held.classes]
                with full_precision(base):
                    out = self.head(tokens.rows(rows), side, base)
                parts.append(out.parts.permute(1, 2, 0))
        return [
            Judged(torch.cat(parts), self.label_of(held))
            for (held, _), parts in zip(sides, found, strict=True)
        ]

    def fit_of(self, judged: list[Judged], ridge: float = RIDGE) -> Fit:
        """The weights of base and levels, by the levels' ridge; 0 for those not among LEVELS."""
        allowed = {"base", *self.head.options.levels}
        names = ("base", *LEVELS)[: judged[0].parts.shape[-1]]
        columns = [place for place, name in enumerate(names) if name in allowed]
        pull = [ridge if column else RIDGE for column in columns]
        fit = fit_weights([one._replace(parts=one.parts[..., columns]) for one in judged], pull)
        weights = fit.weights.new_zeros(len(names))
        weights[columns] = fit.weights
        if not weights.any():  # nothing is likelier than chance: the base is left as it is
            weights[0] = 1
        return Fit(weights.to(self.anchors), fit.nll)

    def one_shot(self, levels: Sequence[str]) -> Fit:
        """Weights without evidence: the base as it is, and some of the levels' spread."""
        every = torch.ones_like(self.label, dtype=torch.bool)
        classes = torch.arange(len(self.classes), device=every.device)
        held = HeldOut(self.hold_out(~every, classes).memory, every, classes)
        side = self.side(held)
        one = self.of_class_token(held, side) if len(levels) == 1 else self.judge([(held, side)])[0]
        centred = one.parts - one.parts.mean(1, keepdim=True)
        spread = centred.square().mean((0, 1)).sqrt()
        weights = torch.zeros(1 + len(levels), dtype=spread.dtype, device=spread.device)
        weights[0] = 1
        for place, name in enumerate(levels, 1):
            if name in self.head.options.levels and spread[place] > TINY:  # else it says nothing
                weights[place] = ONE_SHOT.get(name, 0.0) / spread[place]
        return Fit(weights, float("nan"))


def counted(pictures: Pictures, number: int) -> Pictures:
    """The same pictures; a ValueError once they are more or fewer than that."""

    def again() -> Iterator[tuple[VisualTokens, Int[Tensor, " B"]]]:
        found = 0
        for tokens, label in pictures():
            found += len(label)
            if found > number:
                break
            yield tokens, label
        if found != number:
            raise ValueError(
                f"{number} training pictures could be read at first, and then "
                f"{'more' if found > number else found}; pictures must not change while the head "
                "is fitted. tools/check_data.py lists those that cannot be read"
            )

    return again
