"""Two-level ranking: kept patches against the prototypes of every class. docs/method.md, section 4.

The class token is the global level; ranks 1..K are the kept patches in two levels, rank K + 1 is
the fused token. Pure functions on features of the whitened spaces.
B images, C classes, K kept, M prototypes, D joint width.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class TextRows(NamedTuple):
    """R_T: what class tokens, kept patches and fused tokens are compared with; unit length."""

    cls: Float[Tensor, "C D"]
    slots: Float[Tensor, "2 C M D"]  # for patches of level 1 and of level 2
    fused: Float[Tensor, "C D"]
    prior: Float[Tensor, "C M"]  # how much evidence each slot has, as a logit


def levels(num_keep: int, level1: int) -> list[slice]:
    """Ranks (from 0 = best patch) of level 1 and of level 2; an empty level is left out."""
    cut = min(level1, num_keep)
    return [part for part in (slice(0, cut), slice(cut, num_keep)) if part.stop > part.start]


def slot_prior(mass: Float[Tensor, "C M"], mix: Tensor) -> Float[Tensor, "C M"]:
    """Mix * log(1 + mass), centred over the slots of each class."""
    evidence = mass.log1p()
    return mix * (evidence - evidence.mean(-1, keepdim=True))


def map_text(
    global_prototypes: Float[Tensor, "C D"], prototypes: Float[Tensor, "C M D"],
    text: tuple[Float[Tensor, "C D"], Float[Tensor, "C D"]], *,
    gain: Float[Tensor, "3"], prior: Float[Tensor, "C M"],
) -> TextRows:
    """TRM: the prototypes of each class, moved towards its text; not unit length.

    Global prototypes and text[0] are in the space of class tokens, the others in that of patches.
    `gain` is u, of the global level, level 1 and level 2.
    """
    of_cls, of_patches = text
    slots = torch.stack([prototypes + u * of_patches.unsqueeze(1) for u in gain[1:]])
    fused = prototypes.mean(1) + gain[2] * of_patches
    return TextRows(global_prototypes + gain[0] * of_cls, slots, fused, prior)


def match_one_to_one(similarity: Float[Tensor, "B K M"]) -> Int[Tensor, "B K"]:
    """The slot of each of K tokens; each of M >= K slots is given once, the best pair first.

    Ties go to the lower token, then to the lower slot. `similarity` must be finite.
    """
    batch, tokens, slots = similarity.shape
    if slots < tokens:
        raise ValueError(
            f"one-to-one matching needs a slot for each token, got {tokens} tokens and "
            f"{slots} slots (TRAINER.SPOTLIGHTER.PROTOTYPES must not be below TOPK)"
        )
    open_pairs = similarity.detach().clone()
    match = torch.zeros(batch, tokens, dtype=torch.long, device=similarity.device)
    for _ in range(tokens):
        best = open_pairs.flatten(1).argmax(-1)  # (B,), the first of equals
        token, slot = best // slots, best % slots
        match.scatter_(1, token.unsqueeze(1), slot.unsqueeze(1))
        taken_row = token[:, None, None].expand(-1, 1, slots)
        taken_column = slot[:, None, None].expand(-1, tokens, 1)
        open_pairs.scatter_(1, taken_row, -torch.inf)
        open_pairs.scatter_(2, taken_column, -torch.inf)
    return match


def map_image(
    kept: Float[Tensor, "B K D"], query: Float[Tensor, "B K D"], *,
    gain: Float[Tensor, " K"], temperature: float,
) -> Float[Tensor, "B K D"]:
    """IRM inside one level: x_j + g_j softmax(q_j . X / temperature) X, not unit length.

    X are the level's patches, unit length; q_j is the prototype matched to patch j.
    """
    attention = (query @ kept.transpose(-1, -2) / temperature).softmax(-1)  # (B, K, K)
    return kept + gain.unsqueeze(-1) * (attention @ kept)


def slot_similarity(
    image_rows: Float[Tensor, "B K D"], slots: Float[Tensor, "C M D"],
    prior: Float[Tensor, "C M"], temperature: float,
) -> Float[Tensor, "B K C"]:
    """How well each patch fits each class: its similarity to the slots, mostly to the nearest.

    sum_m softmax_m(S_m / temperature + prior_m) S_m, S_m = <R_I, R_T[m]>; rows and slots are of
    unit length. A small temperature (> 0) leaves the nearest slot alone.
    """
    similarity = (image_rows @ slots.flatten(0, 1).T).unflatten(-1, prior.shape)  # (B, K, C, M)
    return ((similarity / temperature + prior).softmax(-1) * similarity).sum(-1)


def weigh_pairs(fit: Float[Tensor, "B K C"], weight: Float[Tensor, "B K"]) -> Float[Tensor, "B C"]:
    """sum_j k_bj fit_bj, k the positive weights normalised over the ranks given."""
    share = weight / weight.sum(-1, keepdim=True)
    return (share.unsqueeze(1) @ fit).squeeze(1)
