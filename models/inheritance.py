"""What classes that were never seen inherit from those that were.

Pure functions. C classes seen, C2 classes asked for, M prototypes, D joint width.
Source: docs/method.md, section 2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from models.tokenizer import normalise_name

NEW_CLASSES = ("inherit", "text", "off")


class Bank(NamedTuple):
    """The prototypes of one class list, seen or not."""

    global_prototypes: Float[Tensor, "C D"]
    prototypes: Float[Tensor, "C M D"]
    mass: Float[Tensor, "C M"]
    """Evidence of each patch prototype: the sum of the token weights that went into it."""
    active: Float[Tensor, " C"]
    """1, or 0 for classes to which the head must add nothing."""


def match_names(class_names: list[str], seen: list[str]) -> list[int]:
    """For each name its position in `seen`, or -1; case and underscores do not count."""

    def key(name: str) -> str:
        return normalise_name(name).casefold()

    position = {key(name): i for i, name in enumerate(seen)}
    return [position.get(key(name), -1) for name in class_names]


def inherit(
    bank: Bank,
    seen_anchors: Float[Tensor, "C D"],
    anchors: Float[Tensor, "C2 D"],
    temperature: float,
) -> Bank:
    """Move each new anchor by the offsets that seen classes learned from theirs.

    P[c', m] = anchor[c'] + sum_c softmax_c(<anchor[c'], anchor[c]> / temperature)
    (P[c, m] - anchor[c]); the global prototype and the mass likewise.
    """
    weight = (anchors @ seen_anchors.T / temperature).softmax(-1)  # (C2, C)
    global_offset = weight @ (bank.global_prototypes - seen_anchors)
    offset = torch.einsum("nc,cmd->nmd", weight, bank.prototypes - seen_anchors.unsqueeze(1))
    return Bank(
        anchors + global_offset,
        anchors.unsqueeze(1) + offset,
        weight @ bank.mass,
        torch.ones_like(anchors[:, 0]),
    )


def text_bank(anchors: Float[Tensor, "C2 D"], num_prototypes: int, active: float) -> Bank:
    """Prototypes that are the text anchors themselves, without evidence."""
    return Bank(
        anchors,
        anchors.unsqueeze(1).expand(-1, num_prototypes, -1),
        anchors.new_zeros(len(anchors), num_prototypes),
        torch.full_like(anchors[:, 0], active),
    )


def resolve(
    bank: Bank,
    seen_anchors: Float[Tensor, "C D"],
    anchors: Float[Tensor, "C2 D"],
    *,
    known_as: list[int],
    new: str,
    temperature: float,
) -> Bank:
    """The bank of any class list: its own prototypes where seen, else what `new` says.

    Args:
        bank: of the seen classes.
        seen_anchors: their unit-length text features.
        anchors: those of the classes asked for.
        known_as: for each of them its position among the seen ones, or -1.
        new: "inherit", "text" (the anchor) or "off" (the head adds nothing).
        temperature: see `inherit`.
    """
    if new == "inherit":
        other = inherit(bank, seen_anchors, anchors, temperature)
    else:
        other = text_bank(anchors, bank.mass.shape[1], 0.0 if new == "off" else 1.0)
    index = torch.tensor(known_as, device=anchors.device)
    seen = index >= 0

    def pick(own: Tensor, unseen: Tensor) -> Tensor:
        return torch.where(seen.view(-1, *[1] * (unseen.dim() - 1)), own[index], unseen)

    return Bank(*(pick(own, unseen) for own, unseen in zip(bank, other, strict=True)))
