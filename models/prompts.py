"""Prompts split where they part: what all classes begin with, and each class's own tail.

C classes, G groups (1, or an image each where prompts depend on the image), P prefix tokens,
T tokens of the longest tail, R tokens of all tails, W tower width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class Packing(NamedTuple):
    """Where the tokens of some tails stand when they are packed one after the other."""

    cell: Int[Tensor, " R"]
    """Of each token: class * T + place, its cell in a padded (C, T) table."""
    place: Int[Tensor, " R"]
    """Of each token: its place in its tail, from 0."""
    end: Int[Tensor, " C"]
    """Of each class: which token is its EOS, the last of its tail."""
    valid: Bool[Tensor, "C T"]
    """Which cells of the padded table hold a token."""


class Layout(nn.Module):
    """The packing of all tails, and of any run of classes. Buffers only; nothing is saved."""

    def __init__(self, length: Int[Tensor, " C"]) -> None:
        """Lay out tails.

        Args:
            length: tokens of each tail, EOS included, at least 1.
        """
        super().__init__()
        self.lengths: list[int] = length.tolist()
        size = max(self.lengths)
        place = torch.arange(size, device=length.device)
        valid = place < length.unsqueeze(1)  # (C, T)
        cell = valid.flatten().nonzero().squeeze(1)  # (R,)
        whole = Packing(cell, cell % size, length.cumsum(0) - 1, valid)
        for name, value in whole._asdict().items():
            self.register_buffer(name, value, persistent=False)

    def parts(self, max_rows: int) -> Iterator[tuple[slice, Packing]]:
        """Runs of classes with at most `max_rows` tokens each (or one class).

        Yields:
            Which of the packed tokens a run has, and its own packing.
        """
        first = row = 0
        while first < len(self.lengths):
            last, end = first + 1, row + self.lengths[first]
            while last < len(self.lengths) and end + self.lengths[last] - row <= max_rows:
                end += self.lengths[last]
                last += 1
            offset = first * self.valid.shape[1]
            rows, classes = slice(row, end), slice(first, last)
            yield (
                rows,
                Packing(
                    self.cell[rows] - offset,
                    self.place[rows],
                    self.end[classes] - row,
                    self.valid[classes],
                ),
            )
            first, row = last, end


class Prompts(NamedTuple):
    """Token embeddings, without positions."""

    prefix: Float[Tensor, "G P W"]
    """SOS, context, and whatever else all classes begin with."""
    tail: Float[Tensor, "R W"]
    """What follows, up to EOS, class after class; the same for all groups."""
    layout: Layout


def split_prompts(prompts: Float[Tensor, "C L W"], layout: Layout, num_prefix: int) -> Prompts:
    """Split whole prompts whose first `num_prefix` tokens are the same for all classes."""
    tail = prompts[:, num_prefix : num_prefix + layout.valid.shape[1]]  # (C, T, W)
    return Prompts(prompts[:1, :num_prefix], tail.flatten(0, 1)[layout.cell], layout)


def common_prefix(ids: Int[Tensor, "C L"], end: Int[Tensor, " C"], most: int | None = None) -> int:
    """How many tokens all sentences begin with, at most `most`; each keeps one for its tail."""
    same = (ids == ids[:1]).all(0).long().cumprod(0).sum()
    found = min(int(same), int(end.min()))
    return found if most is None else min(found, most)
