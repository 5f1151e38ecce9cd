"""Operations of a work, and how many the machine reaches in plain matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)


def attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """Operations of the CPU's fused attention, which torch does not count."""
    return sdpa_flop_count(q, k, v)


def attention_backward(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """The same for its gradient."""
    return sdpa_backward_flop_count(grad, q, k, v)


FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
EXTRA = {FUSED: attention, FUSED_BACKWARD: attention_backward}


def count_gflop(work: Callable[[], object]) -> float:
    """Call a work once; 10^9 operations of its matrix products, convolutions and attentions.

    A multiplication and an addition count as two.
    """
    counter = FlopCounterMode(display=False, custom_mapping=EXTRA)
    with counter:
        work()
    return counter.get_total_flops() / 1e9


class MatrixProduct:
    """The products of an image tower's block as the machine does them alone: its attainable rate.

    A work of its own, timed in turns with the others: (rows, W) times (W, 4 W), the MLP, and times
    (W, 3 W), queries, keys and values.
    """

    def __init__(self, visual: nn.Module, batch: int, dtype: torch.dtype) -> None:
        """Draw the matrices.

        Args:
            visual: CLIP's image tower.
            batch: pictures.
            dtype: of the products.
        """
        tokens, width = visual.positional_embedding.shape
        device = visual.conv1.weight.device
        shapes = ((batch * tokens, width), (width, 4 * width), (width, 3 * width))
        drawn = [torch.randn(shape, device=device).to(dtype) for shape in shapes]
        self.rows, self.weights = drawn[0], drawn[1:]
        self.gflop = 2 * batch * tokens * width * 7 * width / 1e9

    @torch.no_grad()
    def __call__(self) -> None:
        """Both products."""
        for weight in self.weights:
            self.rows @ weight
