"""The memory of TextRefiner and of the released Spotlighter: read, written, and what is learned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lab.published.common import normalise

ADAPTER = "mid_image_trans"
TOPK = 5  # patches that class-token attention selects


@dataclass(frozen=True)
class Settings:
    """Weights of the losses and of the memory.

    Args:
        balance: divides the losses of single tokens.
        distill: factor of the distance between features before and after.
        alpha: share of what the memory adds to the text.
        momentum: what a slot keeps of itself when it is written.
    """

    balance: float = 50.0
    distill: float = 20.0
    alpha: float = 0.2
    momentum: float = 0.8


def read_memory(query: Float[Tensor, "R D"], memory: Float[Tensor, "S D"]) -> Float[Tensor, "R D"]:
    """Mean of the slots, weighted by their likeness to each query."""
    return (query @ memory.t()).softmax(dim=1) @ memory


@torch.no_grad()
def write_memory(
    memory: Float[Tensor, "S D"], x: Float[Tensor, "B L D"], momentum: float
) -> Float[Tensor, "S D"]:
    """The memory after a batch, a new tensor; every token goes to the slot it is most like.

    The tokens of a slot are summed, not averaged; each counts in relation to the token of the batch
    most like the slot, be that its own or not. A slot without tokens stays.
    """
    tokens = normalise(x.flatten(0, -2))  # (B * L, D)
    scores = tokens @ memory.t()  # (B * L, S)
    slots = scores.argmax(dim=1)  # (B * L,)
    shares = scores.softmax(dim=0)  # over tokens
    written = memory.clone()
    for i in range(len(memory)):
        own = slots == i
        if own.any():
            weights = shares[own, i] / shares[:, i].max()  # (R,)
            added = (weights.unsqueeze(1) * tokens[own]).sum(dim=0)  # (D,)
            written[i] = momentum * memory[i] + (1 - momentum) * added
    return normalise(written)


def refine_text(
    text: Float[Tensor, "C D"],
    memory: Float[Tensor, "S D"],
    extractor: Float[Tensor, "D D2"],
    alpha: float,
) -> Float[Tensor, "C D"]:
    """Text features plus what a linear map makes of them and of the memory; not unit length."""
    both = torch.cat([text, read_memory(text, memory)], dim=1)  # (C, 2 D)
    return text + alpha * F.linear(both, extractor)


def token_rows(
    x: Float[Tensor, "B L D"], attention: Float[Tensor, "B N"], offset: int
) -> Float[Tensor, "B 7 D"]:
    """Class token, the tokens with most attention in falling order, the mean of all tokens.

    Args:
        x: class token and N patches.
        attention: to the N patches.
        offset: of the patches in `x`; the released Spotlighter forgets it and has 0.
    """
    top = attention.topk(TOPK, dim=1).indices + offset  # (B, 5)
    image = torch.arange(len(x), device=x.device).unsqueeze(1)  # (B, 1)
    return torch.cat([x[:, :1], x[image, top], x.mean(dim=1, keepdim=True)], dim=1)


def rows_loss(
    rows: Float[Tensor, "B K D"],
    text: Float[Tensor, "C D"],
    labels: Int[Tensor, " B"],
    scale: Tensor,
) -> Tensor:
    """Cross-entropy of single tokens, each with the label of its image."""
    logits = scale * rows.flatten(0, 1) @ text.t()  # (B * K, C)
    return F.cross_entropy(logits, labels.repeat_interleave(rows.shape[1]))


def distance(changed: Float[Tensor, "R D"], before: Float[Tensor, "R D"]) -> Tensor:
    """L1 to unit-length features; both sides carry gradients."""
    return F.l1_loss(normalise(changed), before)
