"""Greedy one-to-one matching of tokens and slots."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def match_one_to_one(similarity: Float[Tensor, "B K M"]) -> Int[Tensor, "B K"]:
    """The slot of each token; each slot is given once, the most similar pair first.

    Ties go to the lower token, then to the lower slot.

    Args:
        similarity: K tokens against M >= K slots, finite.

    Returns:
        Slot indices in 0..M-1, distinct within an image.

    Raises:
        ValueError: there are fewer slots than tokens.
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
