"""The class-specific semantic memory bank. docs/method.md, section 2.

Each class owns one global prototype (of class tokens) and M patch prototypes (of kept patches),
each with the evidence (mass) that went into it. The bank also holds the whitened spaces of class
tokens and of patches, and the direction in which attended patches differ from the others. All of
it is buffers: saved, loaded, moved with the module. C classes seen, M prototypes, D joint width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.class_names import OfClasses, match_names
from models.clip.blocks import at_least_float32, gather_tokens, unit
from models.spotlighter.whiten import Whitening

ROUNDS = 8  # of k-means


class Bank(NamedTuple):
    """The prototypes of one class list, seen in training or not."""

    global_prototypes: Float[Tensor, "C D"]
    prototypes: Float[Tensor, "C M D"]
    mass: Float[Tensor, "C M"]  # sum of the token weights that went into each patch prototype
    seen: Bool[Tensor, " C"]  # whether the class had training pictures


class Written(NamedTuple):
    """What a bank is filled from: features of training pictures. Unit length, no gradient."""

    cls: Float[Tensor, "B D"]
    kept: Float[Tensor, "B K D"]  # the patches that are kept
    weight: Float[Tensor, "B K"]  # softmax of their activations
    label: Int[Tensor, " B"]

    def of(self, chosen: Bool[Tensor, " B"]) -> Written:
        """Some of the pictures."""
        return Written(*(column[chosen] for column in self))


class PrototypeMemory(OfClasses):
    """Prototypes of the classes seen in training. Others inherit from them.

    `fill` writes, after training; `read` never does.
    """

    by_class = ("anchors", "global_prototypes", "global_mass", "prototypes", "mass")

    def __init__(
        self, class_names: list[str], anchors: Float[Tensor, "C D"], *, num_prototypes: int
    ) -> None:
        """An empty bank: every prototype is its class's anchor (text0), without evidence."""
        super().__init__()
        classes, width = anchors.shape
        self.class_names = list(class_names)
        self.register_buffer("anchors", anchors.clone())
        self.register_buffer("global_prototypes", anchors.clone())
        self.register_buffer("global_mass", anchors.new_zeros(classes))
        self.register_buffer("prototypes", anchors.unsqueeze(1).repeat(1, num_prototypes, 1))
        self.register_buffer("mass", anchors.new_zeros(classes, num_prototypes))
        self.register_buffer("direction", anchors.new_zeros(width))
        self.register_buffer("filled", torch.zeros((), dtype=torch.bool))
        self.cls_space = Whitening(width)
        self.patch_space = Whitening(width)

    @torch.no_grad()
    def fill(self, written: Written, direction: Float[Tensor, " D"]) -> None:
        """Fill the bank anew from the features of all training pictures, several views of each.

        Global prototypes become class means, patch prototypes the means of the clusters of each
        class's kept patches, by their weights; both whitened spaces are fitted. `direction` is that
        in which attended patches differ from the others.
        """
        cls, kept = at_least_float32(written.cls), at_least_float32(written.kept)
        weight, label = at_least_float32(written.weight), written.label
        weight = weight / weight.amax(-1, keepdim=True)
        num_slots = self.mass.shape[1]
        self.direction.copy_(direction)
        self.cls_space.fit(cls, label)
        self.patch_space.fit(kept.flatten(0, 1), label.repeat_interleave(kept.shape[1]))
        self.global_prototypes.copy_(self.anchors)
        self.global_mass.zero_()
        self.prototypes.copy_(self.anchors.unsqueeze(1).expand_as(self.prototypes))
        self.mass.zero_()
        for c in label.unique().tolist():
            rows = (label == c).nonzero().squeeze(1)
            self.global_prototypes[c] = cls[rows].mean(0)
            self.global_mass[c] = len(rows)
            patches, share = kept[rows].flatten(0, 1), weight[rows].flatten()
            slot = cluster(self.patch_space(patches), num_slots)
            total = torch.zeros_like(self.prototypes[c])
            total.index_add_(0, slot, share.unsqueeze(1) * patches)
            self.mass[c].index_add_(0, slot, share)
            used = self.mass[c] > 0
            self.prototypes[c, used] = total[used] / self.mass[c, used].unsqueeze(1)
        order = self.mass.argsort(dim=1, descending=True, stable=True)  # most evidence first
        self.prototypes.copy_(gather_tokens(self.prototypes, order))
        self.mass.copy_(self.mass.gather(1, order))
        self.filled.fill_(True)

    @torch.no_grad()
    def read(
        self, class_names: list[str], anchors: Float[Tensor, "C2 D"], *,
        new: str = "inherit", temperature: float = 0.3,
    ) -> Bank:
        """The bank of any class list; `new`: one of `CHOICES`, for classes without pictures."""
        own = Bank(self.global_prototypes, self.prototypes, self.mass, self.global_mass > 0)
        index = torch.tensor(match_names(class_names, self.class_names), device=anchors.device)
        seen = (index >= 0) & own.seen[index]
        other = bank_of_new_classes(own, self.anchors, anchors, new, temperature)

        def pick(mine: Tensor, unseen: Tensor) -> Tensor:
            return torch.where(seen.view(-1, *[1] * (unseen.dim() - 1)), mine[index], unseen)

        return Bank(*(pick(*pair) for pair in zip(own, other, strict=True)))


@torch.no_grad()
def cluster(x: Float[Tensor, "N D"], num_clusters: int) -> Int[Tensor, " N"]:
    """The cluster of each vector, by spherical k-means without randomness; x is unit length.

    The first centre is the first vector, each further one the vector that is least similar to all
    centres so far. With fewer vectors than clusters some clusters stay empty.
    """
    centres = x[:1]
    nearest = x @ x[0]
    for _ in range(min(num_clusters, len(x)) - 1):
        farthest = nearest.argmin()
        centres = torch.cat([centres, x[farthest].unsqueeze(0)])
        nearest = torch.maximum(nearest, x @ x[farthest])
    for _ in range(ROUNDS):
        of = (x @ centres.T).argmax(1)
        total = torch.zeros_like(centres).index_add_(0, of, x)
        filled = total.abs().sum(1, keepdim=True) > 0
        centres = torch.where(filled, unit(total), centres)
    return (x @ centres.T).argmax(1)


def bank_of_new_classes(
    bank: Bank, seen_anchors: Float[Tensor, "C D"], anchors: Float[Tensor, "C2 D"],
    new: str, temperature: float,
) -> Bank:
    """The bank of classes that have no training pictures.

    With "inherit" each anchor is moved by the offsets that seen classes learned from theirs:
    P[c', m] = anchor[c'] + sum_c softmax_c(<anchor[c'], anchor[c]> / temperature)
    (P[c, m] - anchor[c]); the global prototype and the mass likewise. A high temperature gives all
    the same mean offset. With "text" and "off" the prototypes are the anchors.
    """
    seen = torch.zeros_like(anchors[:, 0], dtype=torch.bool)
    if new != "inherit":
        slots = anchors.unsqueeze(1).expand(-1, bank.mass.shape[1], -1)
        return Bank(anchors, slots, torch.zeros_like(slots[..., 0]), seen)
    likeness = anchors @ seen_anchors.T / temperature  # (C2, C)
    weight = likeness.masked_fill(~bank.seen, -torch.inf).softmax(-1).where(bank.seen, 0.0)
    global_offset = weight @ (bank.global_prototypes - seen_anchors)
    offset = torch.einsum("nc,cmd->nmd", weight, bank.prototypes - seen_anchors.unsqueeze(1))
    return Bank(anchors + global_offset, anchors.unsqueeze(1) + offset, weight @ bank.mass, seen)
