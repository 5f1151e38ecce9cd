"""Memory and operations of a work, and the rate of the machine in plain matrix products."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def extra_mb(work: Callable[[], object], device: str = "cpu") -> float:
    """Call a work once; its peak of tensor memory, less what was held before, in MB of 10^6 bytes.

    On CUDA that is the allocator's own peak. On a CPU every allocation and release of tensor
    storage is summed in the order of their times. Neither counts the scratch space of the matrix
    libraries, nor the weights, which are there before.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = profiler.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        held += change
        peak = max(peak, held)
    return peak / 1e6


def attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """Operations of the CPU's fused attention, which torch does not count."""
    return sdpa_flop_count(q, k, v)


def attention_backward(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """The same for its gradient."""
    return sdpa_backward_flop_count(grad, q, k, v)


FUSED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}


def count_gflop(work: Callable[[], object]) -> float:
    """Call a work once; 10^9 operations of its matrix products, convolutions and attentions.

    A multiplication and an addition count as two.
    """
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        work()
    return counter.get_total_flops() / 1e9


class MatrixProduct:
    """The matrix products of a block alone, a work to time: the rate that the machine reaches.

    (rows, W) times (W, 4 W), as in the MLP, and times (W, 3 W), queries, keys and values.
    """

    def __init__(self, visual: nn.Module, batch: int, dtype: torch.dtype) -> None:
        tokens, width = visual.positional_embedding.shape
        device = visual.conv1.weight.device
        shapes = ((batch * tokens, width), (width, 4 * width), (width, 3 * width))
        self.rows, *self.weights = (torch.randn(s, device=device).to(dtype) for s in shapes)
        self.gflop = 2 * batch * tokens * width * 7 * width / 1e9

    @torch.no_grad()
    def __call__(self) -> None:
        """Both products."""
        for weight in self.weights:
            self.rows @ weight
