"""Prompts -> text features: what classes share is computed once, and padding never.

The tower is causal, so the state of a token depends on those before it alone. The prefix that all
classes have in common (SOS, context) is there once, or once for each image where prompts depend on
it; the classes' own tails are packed behind it without padding. Tails that begin alike ("red
fox", "red owl") share the tokens in which they do. Exact, gradients included.
C classes, G groups, P prefix tokens, T tokens of the longest tail, R different tokens of all tails,
W tower width, H heads.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.clip.blocks import BeforeBlock, at_least_float32, merge_heads, mlp, project, unit
from models.clip.tokenizer import tokenizer_of

logger = logging.getLogger(__name__)

ROWS_AT_A_TIME = 16384  # tokens, where no gradient is kept; bounds the memory
# What a block keeps of a token for the backward pass, measured: times W, and times H scores.
KEPT_WIDTHS, KEPT_SCORES = 12, 4
# Files of a control group: its limit, its use; and the key of the use that is cache.
GROUPS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
CGROUPS = Path("/sys/fs/cgroup")


class Packing(NamedTuple):
    """Where the tokens of some tails stand when each is there once, one after the other."""

    cell: Int[Tensor, " R"]  # the first of each token in a padded (C, T) table: class * T + place
    place: Int[Tensor, " R"]  # of each token in its tail, from 0
    end: Int[Tensor, " C"]  # of each class: which token is its EOS, the last of its tail
    row: Int[Tensor, "C T"]  # which token each cell of the padded table holds; behind EOS any
    valid: Bool[Tensor, "C T"]  # which cells of the padded table hold a token


def pack(
    tails: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int[Tensor, " R"], Packing]:
    """The numbers of the tokens that are kept, in order of appearance, and the packing.

    A token is kept once for all tails that are the same up to it.
    """
    size, known = max(map(len, tails)), dict[tuple[int, ...], int]()
    places = [
        [known.setdefault(tuple(tail[: place + 1]), len(known)) for place in range(size)]
        for tail in tails  # behind EOS: all of a tail
    ]
    row = torch.tensor(places, device=device)
    highest = row.flatten().cummax(0).values  # it rises where a token is new
    cell = highest.diff(prepend=highest.new_full((1,), -1)).nonzero().squeeze(1)
    length = torch.tensor([len(tail) for tail in tails], device=device)
    valid = torch.arange(size, device=device) < length.unsqueeze(1)
    found = torch.tensor([begins[-1] for begins in known], device=device)
    return found, Packing(cell, cell % size, row[:, -1].clone(), row, valid)


class Layout(nn.Module):
    """The packing of tails of `length` tokens each, EOS included, at least 1. Nothing is saved.

    With `ids`, the tokens of the tails, those that begin alike share tokens; without, none do.
    """

    def __init__(self, length: Int[Tensor, " C"], ids: Int[Tensor, "C L"] | None = None) -> None:
        super().__init__()
        self.lengths: list[int] = length.tolist()
        words = [[i] * n for i, n in enumerate(self.lengths)] if ids is None else ids.tolist()
        cut = [own[:n] for own, n in zip(words, self.lengths, strict=True)]
        _, whole = pack(cut, length.device)
        for name, value in whole._asdict().items():
            self.register_buffer(name, value, persistent=False)
        rows = zip(whole.row.tolist(), self.lengths, strict=True)
        self._rows = [row[:n] for row, n in rows]  # of each tail
        self._parts: dict[tuple[int, torch.device], list[tuple[Tensor, Packing]]] = {}

    def parts(self, max_rows: int) -> list[tuple[slice, Packing]] | list[tuple[Tensor, Packing]]:
        """Runs of at most `max_rows` tokens (or one class): which tokens, and their own packing."""
        if len(self.cell) <= max_rows:
            whole = (self.get_buffer(name) for name in Packing._fields)
            return [(slice(None), Packing(*whole))]
        key = max_rows, self.row.device
        if key not in self._parts:
            self._parts[key] = [pack(rows, self.row.device) for rows in self._runs(max_rows)]
        return self._parts[key]

    def _runs(self, max_rows: int) -> Iterator[list[list[int]]]:
        """The tails of each part, as rows."""
        first = 0
        while first < len(self._rows):
            last, count = first + 1, self.lengths[first]
            while last < len(self._rows) and count + self.lengths[last] <= max_rows:
                count += self.lengths[last]
                last += 1
            yield self._rows[first:last]
            first = last


InTails = Callable[[slice, int, Tensor, Packing], Tensor]
"""`in_tails(classes, depth, x, packing) -> x` with the tails x (G, R, W) of some classes."""


class Prompts(NamedTuple):
    """Token embeddings, without positions."""

    prefix: Float[Tensor, "G P W"]  # SOS, context, and whatever else all classes begin with
    tail: Float[Tensor, "R W"]  # the rest, up to EOS, as packed; the same for all groups
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


def free_memory(device: torch.device) -> float:
    """Bytes that a process may still take; infinite where the system does not tell.

    On a CPU, the least of what the machine, the control group and `ulimit -v` leave.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type != "cpu":
        return math.inf
    kilobytes = _table(Path("/proc/meminfo")).get("MemAvailable:", math.inf)
    return min(kilobytes * 1024, _of_group(), _of_process())


def _of_group() -> float:
    """What the control group leaves."""
    for most, taken, kept in GROUPS:
        try:
            limit = float((CGROUPS / most).read_text())
            used = float((CGROUPS / taken).read_text())
        except (OSError, ValueError):  # none of this version, or "max"
            continue
        statistics = _table((CGROUPS / most).with_name("memory.stat"))
        return limit - used + statistics.get(kept, 0)
    return math.inf


def _of_process() -> float:
    """What `ulimit -v` leaves."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = float(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return math.inf
    is_limited = limit != resource.RLIM_INFINITY
    return limit - pages * resource.getpagesize() if is_limited else math.inf


def _table(path: Path) -> dict[str, float]:
    """The first number of each line, by the word before it."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: float(words[1]) for words in lines if len(words) > 1}


class TextEncoder(nn.Module):
    """CLIP's text tower on prompt embeddings, with a seam before every block.

    Differs from `CLIP.encode_text` in: it computes what prompts begin with once (for each part
    where the tails are taken in parts), and only the EOS rows in the last block. Features equal
    CLIP's at 77 positions to rounding.
    """

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.transformer = clip.transformer
        self.positional_embedding = clip.positional_embedding
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.token_embedding = clip.token_embedding
        self.in_parts = True  # where no gradient is kept; a graph for any batch knows no parts
        self.tokenizer = tokenizer_of(clip)
        self.chunk = 0  # prompts at a time while learning, the rest recomputed; 0: as memory allows
        self._fitting: dict[tuple[int, int], int] = {}  # by classes and groups

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tower's matrix products."""
        return self.text_projection.dtype

    @property
    def num_blocks(self) -> int:
        """Transformer blocks of the tower."""
        return len(self.transformer.resblocks)

    def forward(
        self, prompts: Prompts, before_block: BeforeBlock | None = None,
        in_tails: InTails | None = None,
    ) -> Float[Tensor, "G C D"]:
        """CLIP's text features, not unit length.

        Before each block, `before_block` gets the prefix alone, `in_tails` what stands behind it.
        """
        learned = prompts.prefix.requires_grad or prompts.tail.requires_grad
        learns = torch.is_grad_enabled() and bool(learned or before_block or in_tails)
        groups, layout = prompts.prefix.shape[0], prompts.layout
        encode: Callable[..., Tensor] = self.encode_part
        limit = sum(layout.lengths)
        if learns and (chunk := self.prompts_at_a_time(prompts)):
            encode = partial(checkpoint, self.encode_part, use_reentrant=False)
            limit = max(1, chunk // groups) * max(layout.lengths)
        elif not learns and self.in_parts:
            limit = max(1, ROWS_AT_A_TIME - prompts.prefix.shape[1])
            at_once = max(1, ROWS_AT_A_TIME // (prompts.prefix.shape[1] + len(prompts.tail)))
            if groups > at_once:  # few groups with all tails: a prefix is computed once
                some = (prompts._replace(prefix=few) for few in prompts.prefix.split(at_once))
                return torch.cat([self(few, before_block, in_tails) for few in some])
        parts, first = [], 0
        for rows, packing in layout.parts(limit):
            classes = slice(first, first := first + len(packing.end))
            seam = None if in_tails is None else partial(in_tails, classes)
            parts.append(encode(prompts.prefix, prompts.tail[rows], packing, before_block, seam))
        return torch.cat(parts, dim=1)

    def prompts_at_a_time(self, prompts: Prompts) -> int:
        """Prompts at a time while learning, 0 for all: `chunk`, or what half the memory holds."""
        if self.chunk:
            return self.chunk
        classes, groups = len(prompts.layout.lengths), prompts.prefix.shape[0]
        if (classes, groups) not in self._fitting:  # once, so that all steps of a run are alike
            room = free_memory(prompts.tail.device) / 2
            size = self.bytes_of_a_prompt(prompts)
            fits = classes * groups * size <= room
            found = 0 if fits else max(1, int(room / 2 / size))  # gradients take as much again
            self._fitting[classes, groups] = found
            if found:
                logger.info(
                    "%d prompts at a time for want of memory (MODEL.TEXT_CHUNK): all %d would "
                    "take %.3g GB, and %.3g GB are free",
                    *(found, classes * groups, classes * groups * size / 1e9, 2 * room / 1e9),
                )
        return self._fitting[classes, groups]

    def bytes_of_a_prompt(self, prompts: Prompts) -> float:
        """About what the backward pass keeps of a prompt's tail, as if all were the longest."""
        size = prompts.layout.valid.shape[1]
        heads = self.transformer.resblocks[0].attn.num_heads
        width = KEPT_WIDTHS * prompts.tail.shape[-1]
        scores = KEPT_SCORES * heads * (size + prompts.prefix.shape[1])
        return float(self.num_blocks * size * (width + scores) * self.dtype.itemsize)

    def encode_part(
        self, prefix: Float[Tensor, "G P W"], tail: Float[Tensor, "R W"], packing: Packing,
        before_block: BeforeBlock | None, in_tails: Callable[[int, Tensor, Packing], Tensor] | None,
    ) -> Float[Tensor, "G C D"]:
        """Features of some classes."""
        groups, num_prefix, _ = prefix.shape
        x = torch.cat([prefix, tail.to(prefix.dtype).expand(groups, -1, -1)], dim=1).to(self.dtype)
        place = torch.arange(num_prefix, device=x.device)
        place = torch.cat([place, num_prefix + packing.place])
        x = x + self.positional_embedding[place].to(self.dtype)  # (G, P + R, W)
        blocks = self.transformer.resblocks
        for depth, block in enumerate(blocks):
            if before_block is not None:
                x = torch.cat([before_block(depth, x[:, :num_prefix]), x[:, num_prefix:]], dim=1)
            if in_tails is not None:
                changed = in_tails(depth, x[:, num_prefix:], packing)
                x = torch.cat([x[:, :num_prefix], changed], dim=1)
            is_last = depth == len(blocks) - 1  # nothing reads its other tokens
            mixed = attend(block.attn, block.ln_1(x), num_prefix, packing, end_only=is_last)
            x = (x[:, num_prefix + packing.end] if is_last else x) + mixed
            x = x + mlp(block, x)
        return self.ln_final(x).to(self.dtype) @ self.text_projection

    @torch.no_grad()
    def encode_raw(self, texts: list[str]) -> Float[Tensor, "C D"]:
        """Float32 features of plain sentences as CLIP gives them, no gradient."""
        tokens = self.tokenizer.tokenize(texts)
        num_prefix = common_prefix(tokens.ids, tokens.eos)
        layout = Layout(tokens.eos + 1 - num_prefix, tokens.ids[:, num_prefix:])
        device = self.text_projection.device
        embedding = self.token_embedding(tokens.ids.to(device))
        return at_least_float32(self(split_prompts(embedding, layout.to(device), num_prefix))[0])

    def encode(self, texts: list[str]) -> Float[Tensor, "C D"]:
        """The same at unit length."""
        return unit(self.encode_raw(texts))


def attend(
    attn: nn.MultiheadAttention, x: Float[Tensor, "G L W"], num_prefix: int, packing: Packing,
    *, end_only: bool,
) -> Float[Tensor, "G Q W"]:
    """Causal attention of P prefix tokens and R of tails; `end_only`: for each EOS alone.

    A token of a tail attends to the prefix and to its own tail up to itself.
    """
    if end_only:
        k, v = project(attn, x, slice(1, 3))  # (G, H, P + R, W / H)
        (q,) = project(attn, x[:, num_prefix + packing.end], slice(0, 1))  # (G, H, C, W / H)
        mixed = attend_tails(q.unsqueeze(3), k, v, num_prefix, packing, ~packing.valid.unsqueeze(1))
        return attn.out_proj(mixed)
    size = packing.valid.shape[1]
    hidden = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
    q, k, v = states = project(attn, x)
    prefix_q, prefix_k, prefix_v = states[:, :, :, :num_prefix]
    own = F.scaled_dot_product_attention(prefix_q, prefix_k, prefix_v, is_causal=True)
    tails = attend_tails(pad(q[:, :, num_prefix:], packing), k, v, num_prefix, packing, hidden)
    return attn.out_proj(torch.cat([merge_heads(own), tails[:, packing.cell]], dim=1))


def attend_tails(
    q: Float[Tensor, "G H C Q Wh"], k: Float[Tensor, "G H L Wh"], v: Float[Tensor, "G H L Wh"],
    num_prefix: int, packing: Packing, hidden: Bool[Tensor, "*C Q T"],
) -> Float[Tensor, "G CQ W"]:
    """Q queries of each tail attend to the prefix, and to tokens of their tail not `hidden`."""
    (prefix_k, near_k), (prefix_v, near_v) = (
        (x[:, :, :num_prefix], pad(x[:, :, num_prefix:], packing)) for x in (k, v)
    )
    size, q = q.shape[2:4], q * q.shape[-1] ** -0.5
    near = (q @ near_k.transpose(-1, -2)).masked_fill(hidden, -torch.inf)  # (G, H, C, Q, T)
    far = (q.flatten(2, 3) @ prefix_k.transpose(-1, -2)).unflatten(2, size)
    share = torch.cat([far, near], dim=-1).softmax(-1).to(v.dtype)  # (G, H, C, Q, P + T)
    far, near = share.split([num_prefix, near.shape[-1]], dim=-1)
    mixed = near @ near_v + (far.flatten(2, 3) @ prefix_v).unflatten(2, size)
    return merge_heads(mixed.flatten(2, 3))


def pad(x: Float[Tensor, "G H R Wh"], packing: Packing) -> Float[Tensor, "G H C T Wh"]:
    """Spread packed tokens over a table of classes and places."""
    return x.index_select(2, packing.row.flatten()).unflatten(2, packing.row.shape)
