"""The class-specific semantic memory bank. docs/method.md, section 2.

Each class owns one global prototype (of class tokens) and M patch prototypes (of kept patches),
each with the evidence (mass) that went into it. The bank also holds the whitened spaces of class
tokens and of patches, and the direction in which attended patches differ from the others. All of
it is buffers: saved, loaded, moved with the module. C classes seen, M prototypes, D joint width.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.clip.blocks import at_least_float32, gather_tokens, unit
from models.clip.prune import LinearDiscriminant
from models.clip.tokenizer import normalise_name
from models.spotlighter.rank import match_one_to_one
from models.spotlighter.whiten import Whitening

NEW_CLASSES = ("inherit", "text", "off")
ROUNDS = 8  # of k-means


class Bank(NamedTuple):
    """The prototypes of one class list, seen in training or not."""

    global_prototypes: Float[Tensor, "C D"]
    prototypes: Float[Tensor, "C M D"]
    mass: Float[Tensor, "C M"]  # sum of the token weights that went into each patch prototype
    active: Float[Tensor, " C"]  # 1, or 0 for classes to which the head must add nothing


class PrototypeMemory(nn.Module):
    """Prototypes of the classes seen in training. Others inherit from them.

    `calibrate` and `update` write, in training only; `read` never does.
    """

    def __init__(
        self, class_names: list[str], anchors: Float[Tensor, "C D"], *,
        num_prototypes: int = 5, momentum: float = 1.0,
    ) -> None:
        """An empty bank: every prototype is its class's anchor (text0), without evidence.

        `momentum` is the share of the old prototype that an update keeps at most, in 0..1.
        """
        super().__init__()
        classes, width = anchors.shape
        self.class_names = list(class_names)
        self.momentum = momentum
        self.register_buffer("anchors", anchors.clone())
        self.register_buffer("global_prototypes", anchors.clone())
        self.register_buffer("global_mass", anchors.new_zeros(classes))
        self.register_buffer("prototypes", anchors.unsqueeze(1).repeat(1, num_prototypes, 1))
        self.register_buffer("mass", anchors.new_zeros(classes, num_prototypes))
        self.register_buffer("direction", anchors.new_zeros(width))
        self.register_buffer("calibrated", torch.zeros((), dtype=torch.bool))
        self.cls_space = Whitening(width)
        self.patch_space = Whitening(width)

    @torch.no_grad()
    def set_direction(self, statistics: LinearDiscriminant) -> None:
        """Set the direction of attended patches: the semantic-wise score until `calibrate`."""
        self.calibrated.fill_(False)
        self.direction.copy_(statistics.direction())

    @torch.no_grad()
    def calibrate(
        self, cls: Float[Tensor, "B D"], kept: Float[Tensor, "B K D"],
        weight: Float[Tensor, "B K"], label: Int[Tensor, " B"],
    ) -> None:
        """Fill the bank anew from the features of all training images, without augmentation.

        Global prototypes become class means, patch prototypes the clusters of each class's kept
        patches; both whitened spaces are fitted.
        """
        cls, kept = at_least_float32(cls), at_least_float32(kept)
        num_slots = self.mass.shape[1]
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
            patches = kept[rows].flatten(0, 1)
            slot = cluster(self.patch_space(patches), num_slots)
            self._write_patches(patches, at_least_float32(weight[rows]), c * num_slots + slot)
        self.sort_by_mass()
        self.calibrated.fill_(True)

    @torch.no_grad()
    def update(
        self, cls: Float[Tensor, "B D"], kept: Float[Tensor, "B K D"],
        weight: Float[Tensor, "B K"], label: Int[Tensor, " B"],
    ) -> None:
        """Write one training batch: unit-length features, and softmax weights of the patches."""
        ones = torch.ones_like(label, dtype=cls.dtype)
        self._blend(self.global_prototypes, self.global_mass, at_least_float32(cls), ones, label)
        slots = self.patch_space(self.prototypes[label])  # (B, M, D)
        kept, weight = at_least_float32(kept), at_least_float32(weight)
        match = match_one_to_one(self.patch_space(kept) @ slots.transpose(1, 2))
        row = label.unsqueeze(1) * self.mass.shape[1] + match  # (B, K), into C * M rows
        self._write_patches(kept.flatten(0, 1), weight, row.flatten())

    def _write_patches(self, x: Tensor, weight: Tensor, row: Tensor) -> None:
        """Blend patches (B * K, D) of weights (B, K) into rows of the C * M slots."""
        weight = weight / weight.amax(-1, keepdim=True)
        slots, mass = self.prototypes.view(-1, x.shape[1]), self.mass.view(-1)
        self._blend(slots, mass, x, weight.flatten(), row)

    def _blend(self, old: Tensor, mass: Tensor, x: Tensor, weight: Tensor, row: Tensor) -> None:
        """Blend the weighted mean of the tokens of each row into that row, in place.

        The rate is max(1 - momentum, W / (mass + W)): the first write replaces, later ones average.
        """
        total = torch.zeros_like(old).index_add_(0, row, weight.unsqueeze(1) * x)  # sum w x
        added = torch.zeros_like(mass).index_add_(0, row, weight)  # W = sum w
        written = added > 0
        mean = total / torch.where(written, added, 1.0).unsqueeze(1)
        rate = (added / torch.where(written, mass + added, 1.0)).clamp_min(1 - self.momentum)
        rate = rate.unsqueeze(1)
        old.copy_(torch.where(written.unsqueeze(1), (1 - rate) * old + rate * mean, old))
        mass.add_(added)

    @torch.no_grad()
    def sort_by_mass(self) -> None:
        """Order the slots of every class by evidence, most first, ties as they stand."""
        order = self.mass.argsort(dim=1, descending=True, stable=True)
        self.prototypes.copy_(gather_tokens(self.prototypes, order))
        self.mass.copy_(self.mass.gather(1, order))

    @torch.no_grad()
    def read(
        self, class_names: list[str], anchors: Float[Tensor, "C2 D"], *,
        new: str = "inherit", temperature: float = 0.3,
    ) -> Bank:
        """The bank of any class list: own prototypes, or those of `bank_of_new_classes`."""
        every = torch.ones_like(self.mass[:, 0])
        own = Bank(self.global_prototypes, self.prototypes, self.mass, every)
        if class_names == self.class_names:
            return own
        other = bank_of_new_classes(own, self.anchors, anchors, new, temperature)
        index = torch.tensor(match_names(class_names, self.class_names), device=anchors.device)
        seen = index >= 0

        def pick(mine: Tensor, unseen: Tensor) -> Tensor:
            return torch.where(seen.view(-1, *[1] * (unseen.dim() - 1)), mine[index], unseen)

        return Bank(*(pick(*pair) for pair in zip(own, other, strict=True)))

    def get_extra_state(self) -> dict[str, Any]:
        """Class names are saved with the prototypes."""
        return {"class_names": list(self.class_names)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over the class names of a checkpoint, after its bank."""
        bank = (self.anchors, self.global_prototypes, self.global_mass, self.prototypes, self.mass)
        sizes, names = sorted({len(part) for part in bank}), list(state["class_names"])
        if sizes != [len(names)]:
            raise ValueError(f"a bank of {sizes} classes has the names of {len(names)}")
        self.class_names = names

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Take over the number of classes of the checkpoint's bank first."""
        for name, buffer in self.named_buffers(recurse=False):
            saved = state_dict.get(prefix + name)
            if saved is None or not saved.dim() == buffer.dim() > 0:
                continue
            if len(saved) != len(buffer) and saved.shape[1:] == buffer.shape[1:]:
                setattr(self, name, buffer.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


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


def match_names(class_names: list[str], seen: list[str]) -> list[int]:
    """For each name its position in `seen`, or -1; case and underscores do not count."""
    position = {normalise_name(name).casefold(): i for i, name in enumerate(seen)}
    return [position.get(normalise_name(name).casefold(), -1) for name in class_names]


def bank_of_new_classes(
    bank: Bank, seen_anchors: Float[Tensor, "C D"], anchors: Float[Tensor, "C2 D"],
    new: str, temperature: float,
) -> Bank:
    """The bank of classes that training did not see.

    With "inherit" each anchor is moved by the offsets that seen classes learned from theirs:
    P[c', m] = anchor[c'] + sum_c softmax_c(<anchor[c'], anchor[c]> / temperature)
    (P[c, m] - anchor[c]); the global prototype and the mass likewise. A high temperature gives all
    the same mean offset. With "text" the prototypes are the anchors; "off": the head adds nothing.
    """
    active = torch.full_like(anchors[:, 0], float(new != "off"))
    if new != "inherit":
        slots = anchors.unsqueeze(1).expand(-1, bank.mass.shape[1], -1)
        return Bank(anchors, slots, torch.zeros_like(slots[..., 0]), active)
    weight = (anchors @ seen_anchors.T / temperature).softmax(-1)  # (C2, C)
    global_offset = weight @ (bank.global_prototypes - seen_anchors)
    offset = torch.einsum("nc,cmd->nmd", weight, bank.prototypes - seen_anchors.unsqueeze(1))
    return Bank(anchors + global_offset, anchors.unsqueeze(1) + offset, weight @ bank.mass, active)
