"""The image tower beside its matrix products alone, and what the rest of its time goes to."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from lab.bench.clock import REPORT, Timing
from lab.bench.counts import count_gflop
from lab.bench.measure import Bench
from lab.bench.rows import Row, timed_rows
from models.clip.image_tower import VisualEncoder, build_visual_encoder

PROFILED = 3  # calls
# Operators of the tower, by what they are; all others are "the rest".
PARTS = {
    "linear layers": ("aten::addmm", "aten::mm", "convolution"),
    "attention (products and softmax)": ("flash_attention", "aten::bmm", "aten::_softmax"),
    "LayerNorm": ("layer_norm",),
    "QuickGELU": ("silu",),
    "residual sums": ("aten::add", "aten::add_"),
    "copies": ("aten::copy_", "aten::cat"),
}
REST = "the rest"
Product = Callable[[], Tensor]


class Products:
    """The matrix products of a tower for a batch, in its shapes and order, and nothing else.

    B pictures of N patches, L = 1 + N tokens, H heads, width W. In the last block the class token
    alone asks. Numbers are random, results are overwritten.
    """

    def __init__(self, encoder: VisualEncoder, batch: int) -> None:
        visual = encoder.visual
        *early, last = visual.transformer.resblocks
        patches, kernel = encoder.num_patches, visual.conv1.weight.flatten(1)
        tokens, heads = batch * (1 + patches), batch * last.attn.num_heads
        length, width = 1 + patches, visual.class_embedding.shape[0] // last.attn.num_heads
        query, key = (heads, length, width), (heads, width, length)
        self.works: list[Product] = [linear(batch * patches, kernel)]
        for block in early:
            self.works += [
                linear(tokens, block.attn.in_proj_weight),
                *(batched(query, key), batched((heads, length, length), query)),
                linear(tokens, block.attn.out_proj.weight),
                *(linear(tokens, layer.weight) for layer in (block.mlp.c_fc, block.mlp.c_proj)),
            ]
        asks, reads = last.attn.in_proj_weight.split([kernel.shape[0], 2 * kernel.shape[0]])
        self.works += [
            *(linear(tokens, reads), linear(batch, asks)),
            *(batched((heads, 1, width), key), batched((heads, 1, length), query)),
            linear(batch, last.attn.out_proj.weight),
            *(linear(batch, layer.weight) for layer in (last.mlp.c_fc, last.mlp.c_proj)),
            linear(batch, visual.proj.T),
        ]

    @torch.no_grad()
    def __call__(self) -> None:
        """All of them."""
        for work in self.works:
            work()


def linear(rows: int, weight: Tensor) -> Product:
    """(rows, in) times a layer's weight (out, in)."""
    x = torch.randn(rows, weight.shape[1]).to(weight)
    return partial(torch.mm, x, weight.detach().T, out=x.new_empty(rows, weight.shape[0]))


def batched(left: tuple[int, int, int], right: tuple[int, int, int]) -> Product:
    """The products of many pairs of matrices."""
    a, b = torch.randn(left), torch.randn(right)
    return partial(torch.bmm, a, b, out=torch.empty(*left[:2], right[2]))


def parts_of(work: Callable[[], object]) -> Iterator[tuple[str, float]]:
    """Seconds of a call by `PARTS`, as the profiler sees them."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(PROFILED):
            work()
    found = dict.fromkeys([*PARTS, REST], 0.0)
    for event in profiler.key_averages():
        matches = (name for name, words in PARTS.items() if any(is_of(event.key, w) for w in words))
        found[next(matches, REST)] += event.self_cpu_time_total / 1e6 / PROFILED
    yield from found.items()


def is_of(key: str, word: str) -> bool:
    """Whether an operator is meant: by its full name, or by a part of it."""
    return key == word if word.startswith("aten::") else word in key


def time_tower(bench: Bench, batch: int) -> list[Row]:
    """Rows of the tower, of its products, and of the parts of its time."""
    if bench.device != "cpu" or bench.dtype != "float32":
        raise ValueError("tower measures the CPU in float32; leave --device and --dtype out")
    encoder, images = build_visual_encoder(bench.clip.visual), bench.images(batch)
    tower: nn.Module = torch.no_grad()(partial(encoder, images))
    products = Products(encoder, batch)
    rows = {name: bench.row("tower", "", name, None, batch) for name in ("tower", "products")}
    timed = timed_rows(rows, bench.clock.compare({"tower": tower, "products": products}))
    whole = timed["tower"].median_s
    found = [replace(row, part=row.median_s / whole) for row in timed.values()]
    found[0] = found[0].counted(count_gflop(tower), count_gflop(products) / found[1].median_s)
    REPORT.update("profiling")
    seconds = dict(parts_of(tower))
    rows = {name: bench.row("tower", "", f"profile: {name}", None, batch) for name in seconds}
    timed = timed_rows(rows, {name: Timing((s,), 1) for name, s in seconds.items()})
    total = sum(seconds.values())
    return found + [replace(row, part=row.median_s / total) for row in timed.values()]
