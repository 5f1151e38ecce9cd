"""Fewer patch tokens inside the image tower: the most active stay, the others become one.

Between attention and MLP of chosen blocks only the class token, the most active patches, one fused
token and learned prompts go on. Two scores rank the patches: the class token's attention in that
block (sample-wise), and a linear discriminant between the patches that the last block attends to
and the others (semantic-wise; closed form, no labels).
B images, N patches, K kept, W tower width. docs/method.md, section 8.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from models.clip.blocks import at_least_float32, gather_tokens, unit

ATTENDED = 0.08  # share of the patches that count as attended to
RIDGE = 1e-3  # of the mean variance, on the diagonal of the scatter
EPSILON = 1e-6
SAME = 1e-12  # variance of unit vectors that differ by rounding alone


def standardise(score: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """z-score over the patches of each image, so that no map drowns the other."""
    centred = score - score.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True).sqrt() + EPSILON)


def log_attention(cls_attention: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Log of the class token's attention, finite."""
    return cls_attention.clamp_min(EPSILON**2).log()


class PatchLayout(NamedTuple):
    """Which tokens of x (B, L, W) are patches: those behind the class token, then the fused one."""

    positions: Int[Tensor, "B N"]  # of each patch present: its index among the picture's patches
    num_fused: int = 0

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Class token (B, 1, W), patches (B, N, W), fused tokens (B, 0 or 1, W) and prompts."""
        patches, rest = self.positions.shape[1], x.shape[1] - 1
        sizes = [1, patches, self.num_fused, rest - patches - self.num_fused]
        return x.split(sizes, dim=1)


class TokenPruner(nn.Module):
    """Which blocks prune to how many patches, and the semantic-wise direction of each.

    Without calibration the class token's attention alone decides.
    """

    def __init__(
        self, *, at: tuple[int, ...], keep: tuple[int, ...], width: int, mix: float = 1.0
    ) -> None:
        """Prune from the blocks `at` (from 0, ascending) on to `keep` patches (descending).

        The fused token is not counted; `width` is W, and `mix` weighs the semantic-wise score.
        Raises ValueError if the schedule contradicts itself; it names all problems.
        """
        super().__init__()
        if problems := schedule_problems(at, keep):
            raise ValueError("MODEL.PRUNE: " + "; ".join(problems))
        self.at, self.keep, self.mix = tuple(at), tuple(keep), mix
        self.register_buffer("directions", torch.zeros(len(at), width))
        self.register_buffer("calibrated", torch.zeros((), dtype=torch.bool))

    def forward(
        self, stage: int, x: Float[Tensor, "B L W"],
        attention: Float[Tensor, "B L"], layout: PatchLayout,
    ) -> tuple[Float[Tensor, "B L2 W"], PatchLayout]:
        """Drop tokens of x in block `at[stage]`; `attention` is the class token's, over all."""
        cls, patches, fused, prompts = layout.split(x)
        num_keep, num_patches = self.keep[stage], patches.shape[1]
        if num_keep >= num_patches:
            return x, layout
        candidates = torch.cat([patches, fused], dim=1)
        seen = at_least_float32(attention[:, 1 : 1 + candidates.shape[1]])
        semantic = standardise(unit(candidates) @ self.directions[stage])
        score = standardise(log_attention(seen)) + self.mix * semantic
        order = score[:, :num_patches].argsort(dim=-1, descending=True, stable=True)
        # What stays keeps its place among the others: attention does not care, pictures do.
        kept = order[:, :num_keep].sort(dim=-1).values
        old = torch.arange(num_patches, candidates.shape[1], device=x.device)
        rest = torch.cat([order[:, num_keep:], old.expand(x.shape[0], -1)], dim=1)
        share = score.gather(1, rest).softmax(-1).to(x.dtype)  # (B, N - K + F)
        fused = share.unsqueeze(1) @ gather_tokens(candidates, rest)
        x = torch.cat([cls, gather_tokens(patches, kept), fused, prompts], dim=1)
        return x, PatchLayout(layout.positions.gather(1, kept), num_fused=1)

    @torch.no_grad()
    def calibrate(self, statistics: list[LinearDiscriminant]) -> None:
        """Take over one direction for each pruned block."""
        self.directions.copy_(torch.stack([one.direction() for one in statistics]))
        self.calibrated.fill_(True)


class Recorder:
    """Drops nothing, and keeps the patches of each block `at`."""

    def __init__(self, at: tuple[int, ...]) -> None:
        self.at, self.patches = at, list[Tensor]()  # (B, N, W) each

    def __call__(
        self, stage: int, x: Tensor, attention: Tensor, layout: PatchLayout
    ) -> tuple[Tensor, PatchLayout]:
        """Keep the patches."""
        self.patches.append(layout.split(x)[1])
        return x, layout


Pruner = TokenPruner | Recorder


def most_attended(attention: Float[Tensor, "B N"]) -> Bool[Tensor, "B N"]:
    """Mask of the patches that the class token attends to most: `ATTENDED`, at least one."""
    num_selected = max(1, round(ATTENDED * attention.shape[1]))
    top = attention.topk(num_selected, dim=-1).indices
    return torch.zeros_like(attention, dtype=torch.bool).scatter(1, top, True)


class LinearDiscriminant:
    """The direction in which selected patches differ from ignored ones, from running sums."""

    def __init__(self) -> None:
        self.count = self.total = self.square = torch.zeros(())  # of no patches yet

    @torch.no_grad()
    def add(self, x: Float[Tensor, "B N W"], selected: Bool[Tensor, "B N"]) -> None:
        """Count a batch; x need not be of unit length."""
        of_unit_length = unit(x).flatten(0, 1)  # (B * N, W)
        self.dtype, rows = of_unit_length.dtype, of_unit_length.double()
        of = torch.stack([selected.flatten(), ~selected.flatten()]).double()  # (2, B * N)
        self.count = self.count + of.sum(1)  # (2,)
        self.total = self.total + of @ rows  # (2, W)
        self.square = self.square + rows.T @ rows  # (W, W)

    def direction(self) -> Float[Tensor, " W"]:
        """The linear discriminant of selected against ignored patches, unit length.

        Zero where it says nothing: no patch was ignored, or those of a group do not differ.
        """
        mean = self.total / self.count.clamp_min(1).unsqueeze(1)  # (2, W)
        within = (self.square - mean.T @ (self.count.unsqueeze(1) * mean)) / self.count.sum()
        if not self.count.all() or within.trace() < SAME:
            return torch.zeros_like(mean[0], dtype=self.dtype)
        ridge = RIDGE * within.diagonal().mean() * torch.eye(len(within), device=within.device)
        return unit(torch.linalg.solve(within + ridge, mean[0] - mean[1]).to(self.dtype))


def schedule_problems(at: tuple[int, ...], keep: tuple[int, ...]) -> list[str]:
    """A sentence for each contradiction in a schedule."""
    found = []
    if len(at) != len(keep):
        found.append(f"AT and KEEP must be of equal length, got {at} and {keep}")
    if list(at) != sorted(set(at)) or min(at, default=0) < 0:
        found.append(f"AT must be ascending block indices from 0, got {at}")
    if list(keep) != sorted(set(keep), reverse=True) or min(keep, default=1) < 1:
        found.append(f"KEEP must be descending numbers of patches, at least 1, got {keep}")
    return found
