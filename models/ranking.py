"""Two-level ranking: kept patches and prototypes meet rank by rank, ranks form levels.

Pure functions. Rank 0 is the class token (the global level), ranks 1..K are the kept patches, rank
K + 1 is the fused token. Source: docs/method.md, sections 4 and 5.
B images, C classes, K kept, M prototypes, D joint width; `*T` stands for (C,), or (B, C) where the
text features depend on the image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.blocks import unit


class RankedSlots(NamedTuple):
    """The slots of each class in the order of their activation by the class's text."""

    prototypes: Float[Tensor, "*T M D"]
    weight: Float[Tensor, "*T M"]
    """omega: softmax of the activations."""


def levels(num_keep: int, level1: int) -> list[slice]:
    """Ranks (from 0 = best patch) of level 1 and of level 2; an empty level is left out."""
    cut = min(level1, num_keep)
    return [part for part in (slice(0, cut), slice(cut, num_keep)) if part.stop > part.start]


def rank_slots(
    text: Float[Tensor, "*T D"],
    prototypes: Float[Tensor, "C M D"],
    mass: Float[Tensor, "C M"],
    *,
    mix: Tensor,
    temperature: float,
) -> RankedSlots:
    """Sort the slots of each class by b = <T, P> / temperature + mix * log(1 + mass), centred.

    Args:
        text: unit length.
        prototypes: unit length.
        mass: evidence, >= 0.
        mix: weight of the evidence.
        temperature: of the text similarity, > 0.
    """
    evidence = mass.log1p()
    evidence = evidence - evidence.mean(-1, keepdim=True)
    b = (prototypes @ text.unsqueeze(-1)).squeeze(-1) / temperature + mix * evidence  # (*T, M)
    order = b.argsort(dim=-1, descending=True, stable=True)
    every = prototypes.expand(*text.shape[:-1], -1, -1)
    ranked = every.gather(-2, order.unsqueeze(-1).expand_as(every))
    return RankedSlots(ranked, b.gather(-1, order).softmax(-1))


def map_text(
    text: Float[Tensor, "*T D"],
    global_prototypes: Float[Tensor, "C D"],
    slots: RankedSlots,
    *,
    gain: Float[Tensor, "3"],
    level1: int,
    num_keep: int,
) -> Float[Tensor, "*T K2 D"]:
    """TRM: the text feature of each class beside its prototypes, one row a rank, not unit length.

    Row 0: T + u_0 G. Rows 1..K: T + u_l M omega_j P_j. Row K + 1: T + u_2 mean_m P_m.

    Args:
        text: unit length.
        global_prototypes: unit length.
        slots: see `rank_slots`.
        gain: u, of the global level, level 1 and level 2.
        level1: ranks in level 1.
        num_keep: K.
    """
    num_slots = slots.weight.shape[-1]
    of_rank = [gain[1] if rank < level1 else gain[2] for rank in range(num_keep)]
    scale = torch.stack(of_rank) * num_slots * slots.weight[..., :num_keep]  # (*T, K)
    parts = [
        gain[0] * global_prototypes.expand_as(text).unsqueeze(-2),
        scale.unsqueeze(-1) * slots.prototypes[..., :num_keep, :],
        gain[2] * slots.prototypes.mean(-2, keepdim=True),
    ]
    return text.unsqueeze(-2) + torch.cat(parts, dim=-2)  # (*T, K + 2, D)


def map_image(
    kept: Float[Tensor, "B K D"],
    query: Float[Tensor, "B K D"],
    key: Float[Tensor, "B K D"],
    *,
    gain: Float[Tensor, " K"],
    temperature: float,
) -> Float[Tensor, "B K D"]:
    """IRM inside one level: x_j + g_j softmax(q_j . keys / temperature) X, not unit length.

    Args:
        kept: the level's patches X, unit length.
        query: the prototype matched to each patch.
        key: the patches as the queries see them.
        gain: g.
        temperature: > 0.
    """
    attention = (query @ key.transpose(-1, -2) / temperature).softmax(-1)  # (B, K, K)
    return kept + gain.unsqueeze(-1) * (attention @ kept)


def pair_logits(
    image_rows: Float[Tensor, "B K D"],
    text_rows: Float[Tensor, "*T K D"],
    weight: Float[Tensor, "B K"],
) -> Float[Tensor, "B C"]:
    """sum_j k_bj <R_I[b, j], R_T[c, j]> with k = weight normalised over the ranks given.

    One matrix product: the weights are folded into the image rows.

    Args:
        image_rows: unit length.
        text_rows: unit length, (C, K, D) or (B, C, K, D).
        weight: positive, of any sum.
    """
    share = weight / weight.sum(-1, keepdim=True)
    image = (share.unsqueeze(-1) * image_rows).flatten(1)  # (B, K * D)
    text = text_rows.flatten(-2)  # (*T, K * D)
    if text.dim() == 2:
        return image @ text.T
    return (text @ image.unsqueeze(-1)).squeeze(-1)


def pair_weight(kappa: Float[Tensor, " K"], weight: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """softplus(kappa_j) w_bj, to be normalised within a level."""
    return F.softplus(kappa) * weight


def mean_row(text_rows: Float[Tensor, "*T K D"]) -> Float[Tensor, "*T D"]:
    """The mean of a class's rows, unit length (for the distillation loss)."""
    return unit(text_rows.mean(-2))
