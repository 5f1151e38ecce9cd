"""One CLIP transformer block, opened at the places that prompt tuning needs.

Differs from `clip.model.ResidualAttentionBlock` in: batch first, any length up to the tower's own,
the fused attention kernel, and access to single pieces (one attention row, the value path).
The weights are read in place from OpenAI's modules; nothing is copied or patched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

BeforeBlock = Callable[[int, Tensor], Tensor]
"""`before_block(depth, x) -> x` with x (B, L, W): may replace, append or drop tokens."""


def unit(x: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
    """Scale the last axis to unit length, in float32."""
    return F.normalize(x.float(), dim=-1)


def project(
    attn: nn.MultiheadAttention, x: Float[Tensor, "B L W"], parts: slice = slice(0, 3)
) -> Float[Tensor, "K B H L Wh"]:
    """Queries, keys and values of `x`, or only `parts` of the three, split into heads."""
    rows = slice(parts.start * attn.embed_dim, parts.stop * attn.embed_dim)
    found = F.linear(x, attn.in_proj_weight[rows], attn.in_proj_bias[rows])  # (B, L, K * W)
    found = found.unflatten(-1, (parts.stop - parts.start, attn.num_heads, -1))
    return found.permute(2, 0, 3, 1, 4)  # (K, B, H, L, W / H)


def attend(
    attn: nn.MultiheadAttention, x: Float[Tensor, "B L W"], *, causal: bool = False
) -> Float[Tensor, "B L W"]:
    """Self-attention with the weights of a `nn.MultiheadAttention` (no dropout, no map kept)."""
    mixed = F.scaled_dot_product_attention(*project(attn, x).unbind(0), is_causal=causal)
    return attn.out_proj(mixed.transpose(1, 2).flatten(2))  # (B, L, W)


def mlp(block: nn.Module, x: Float[Tensor, "*shape W"]) -> Float[Tensor, "*shape W"]:
    """LayerNorm and MLP of a block, without the residual.

    QuickGELU, x sigmoid(1.702 x) = silu(1.702 x) / 1.702, is one fused operator here: both factors
    go into the matrix products.
    """
    inner, act, outer = block.mlp.c_fc, block.mlp.gelu, block.mlp.c_proj
    x = block.ln_2(x)
    if type(act).__name__ != "QuickGELU":
        return outer(act(inner(x)))
    rows = x.flatten(0, -2)
    hidden = F.silu(torch.addmm(inner.bias, rows, inner.weight.T, beta=1.702, alpha=1.702))
    out = torch.addmm(outer.bias, hidden, outer.weight.T, alpha=1 / 1.702)
    return out.view_as(x)


def run_block(
    block: nn.Module, x: Float[Tensor, "B L W"], *, causal: bool = False
) -> Float[Tensor, "B L W"]:
    """One pre-norm block: attention and MLP, each with its residual."""
    x = x + attend(block.attn, block.ln_1(x), causal=causal)
    return x + mlp(block, x)


def class_token_attention(block: nn.Module, x: Float[Tensor, "B L W"]) -> Float[Tensor, "B L"]:
    """Attention of token 0 over all tokens in `block`, mean of heads, float32; rows sum to 1.

    One query only: the full L x L map is never formed.
    """
    normed = block.ln_1(x)
    (query,) = project(block.attn, normed[:, :1], slice(0, 1))  # (B, H, 1, W/H)
    (key,) = project(block.attn, normed, slice(1, 2))  # (B, H, L, W/H)
    score = (query @ key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5  # (B, H, 1, L)
    return score.softmax(-1).mean(1).squeeze(1)


def value_path(block: nn.Module, x: Float[Tensor, "B L W"]) -> Float[Tensor, "B L W"]:
    """Each token's own value vector through the output projection: no residual, no MLP.

    Source: MaskCLIP (Zhou et al., ECCV 2022), section 3.2.
    """
    (value,) = project(block.attn, block.ln_1(x), slice(2, 3))  # (B, H, L, W/H)
    return block.attn.out_proj(value.transpose(1, 2).flatten(2))


def run_blocks(
    blocks: Iterable[nn.Module],
    x: Float[Tensor, "B L W"],
    *,
    causal: bool = False,
    before_block: BeforeBlock | None = None,
) -> Float[Tensor, "B L2 W"]:
    """All blocks in order; `before_block` sees the tokens on their way into each."""
    for depth, block in enumerate(blocks):
        if before_block is not None:
            x = before_block(depth, x)
        x = run_block(block, x, causal=causal)
    return x


def deep_prompts(prompts: Sequence[Float[Tensor, "M W"]], where: slice) -> BeforeBlock:
    """The seam of deep prompt tuning: block j = 1, 2, ... sees prompts of its own.

    Args:
        prompts: those of blocks 1, 2, ...; later blocks keep what comes out of the last of them.
        where: the positions they take; they replace what stands there.

    Source: MaPLe (Khattak et al., CVPR 2023), section 3.2, https://arxiv.org/abs/2210.03117
    """

    def before_block(depth: int, x: Tensor) -> Tensor:
        if not 1 <= depth <= len(prompts):
            return x
        start, stop, _ = where.indices(x.shape[1])
        own = prompts[depth - 1].to(x.dtype).expand(len(x), -1, -1)  # (B, M, W)
        return torch.cat([x[:, :start], own, x[:, stop:]], dim=1)

    return before_block


def freeze(module: nn.Module) -> nn.Module:
    """Evaluation mode, no gradients; returns the module itself."""
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def as_parameter(value: float | list[float]) -> nn.Parameter:
    """A learned float32 scalar or vector with the given start value."""
    return nn.Parameter(torch.tensor(value, dtype=torch.float32))
