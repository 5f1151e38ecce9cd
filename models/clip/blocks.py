"""One CLIP transformer block, opened at the places that prompt tuning needs.

Unlike `clip.model.ResidualAttentionBlock`: batch first, any length up to the tower's own, fused
attention, single pieces (one attention row, the value path). Weights are read in place.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

BeforeBlock = Callable[[int, Tensor], Tensor]
"""`before_block(depth, x) -> x` with x (B, L, W): may replace, append or drop tokens."""


def unit(x: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
    """Scale the last axis to unit length, in float32 or better."""
    return F.normalize(at_least_float32(x), dim=-1)


def project(
    attn: nn.MultiheadAttention, x: Float[Tensor, "B L W"], parts: slice = slice(0, 3)
) -> Float[Tensor, "K B H L Wh"]:
    """Queries, keys and values of `x`, or only `parts` of the three, split into heads."""
    rows = slice(parts.start * attn.embed_dim, parts.stop * attn.embed_dim)
    found = F.linear(x, attn.in_proj_weight[rows], attn.in_proj_bias[rows])  # (B, L, K * W)
    found = found.unflatten(-1, (parts.stop - parts.start, attn.num_heads, -1))
    return found.permute(2, 0, 3, 1, 4)  # (K, B, H, L, W / H)


def merge_heads(x: Float[Tensor, "B H L Wh"]) -> Float[Tensor, "B L W"]:
    """Heads side by side."""
    return x.transpose(1, 2).flatten(2)


def mlp(block: nn.Module, x: Float[Tensor, "*shape W"]) -> Float[Tensor, "*shape W"]:
    """LayerNorm and MLP of a block, without the residual."""
    # QuickGELU, x sigmoid(1.702 x) = silu(1.702 x) / 1.702: its factors go into the products.
    inner, act, outer = block.mlp.c_fc, block.mlp.gelu, block.mlp.c_proj
    x = block.ln_2(x)
    if type(act).__name__ != "QuickGELU":
        return outer(act(inner(x)))
    rows = x.flatten(0, -2)
    hidden = F.silu(torch.addmm(inner.bias, rows, inner.weight.T, beta=1.702, alpha=1.702))
    return torch.addmm(outer.bias, hidden, outer.weight.T, alpha=1 / 1.702).view_as(x)


def run_block(
    block: nn.Module, x: Float[Tensor, "B L W"], *, causal: bool = False
) -> Float[Tensor, "B L W"]:
    """One pre-norm block: attention and MLP, each with its residual."""
    q, k, v = project(block.attn, block.ln_1(x))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    x = x + block.attn.out_proj(merge_heads(mixed))
    return x + mlp(block, x)


def attend_with_map(
    attn: nn.MultiheadAttention, x: Float[Tensor, "B L W"]
) -> tuple[Float[Tensor, "B L W"], Float[Tensor, "B L"]]:
    """Self-attention; and that of token 0 over all, mean of heads, float32, without gradient."""
    q, k, v = project(attn, x)  # (B, H, L, W / H)
    mixed = F.scaled_dot_product_attention(q, k, v)
    with torch.no_grad():
        score = at_least_float32(q[:, :, :1] @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        attention = score.softmax(-1).mean(1).squeeze(1)  # (B, L)
    return attn.out_proj(merge_heads(mixed)), attention


def read_class_token(
    block: nn.Module, x: Float[Tensor, "B L W"]
) -> tuple[Float[Tensor, "B W"], Float[Tensor, "B L W"], Float[Tensor, "B L"]]:
    """A block for token 0 alone: it behind the block, all value vectors, its attention over all."""
    attn, normed = block.attn, block.ln_1(x)
    k, v = project(attn, normed, slice(1, 3))  # (B, H, L, W / H)
    (q,) = project(attn, normed[:, :1], slice(0, 1))  # (B, H, 1, W / H)
    score = at_least_float32(q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5  # (B, H, 1, L)
    share = score.softmax(-1)
    cls = x[:, :1] + attn.out_proj(merge_heads(share.to(v.dtype) @ v))  # (B, 1, W)
    cls = cls + mlp(block, cls)
    return cls[:, 0], merge_heads(v), share.mean(1).squeeze(1)  # float32, rows sum to 1


def deep_prompts(prompts: Sequence[Float[Tensor, "M W"]], where: slice) -> BeforeBlock:
    """Deep prompt tuning: own prompts for each of the blocks 1, 2, ... at the positions `where`.

    Later blocks keep what comes out of the last of them.
    Source: MaPLe (Khattak et al., CVPR 2023), section 3.2, https://arxiv.org/abs/2210.03117
    """

    def before_block(depth: int, x: Tensor) -> Tensor:
        if not 1 <= depth <= len(prompts):
            return x
        start, stop, _ = where.indices(x.shape[1])
        own = prompts[depth - 1].to(x.dtype).expand(x.shape[0], -1, -1)  # (B, M, W)
        return torch.cat([x[:, :start], own, x[:, stop:]], dim=1)

    return before_block


def freeze(module: nn.Module) -> nn.Module:
    """Evaluation mode, no gradients; returns the module itself."""
    return module.eval().requires_grad_(False)


def as_parameter(value: float | list[float]) -> nn.Parameter:
    """A learned scalar or vector with the given start value, in torch's default dtype."""
    return nn.Parameter(torch.tensor(value, dtype=torch.get_default_dtype()))


def gather_tokens(
    tokens: Float[Tensor, "B N D"], indices: Int[Tensor, "B K"]
) -> Float[Tensor, "B K D"]:
    """Rows of each image's tokens; `indices` count from the first row of `tokens`."""
    return tokens.gather(1, indices.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Switch autocast off on the tensor's device: features and heads are float32."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32; float64 stays, so that a whole model can run in it."""
    return x if x.dtype == torch.float64 else x.float()


def cast_products(module: nn.Module, dtype: torch.dtype) -> None:
    """Store the weights of matrix products in another dtype; LayerNorms and embeddings stay."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            own: Iterable[Any] = part.parameters(recurse=False)
        else:
            own = (getattr(part, name, None) for name in ("proj", "text_projection"))
        for parameter in own:
            if isinstance(parameter, nn.Parameter):
                parameter.data = parameter.data.to(dtype)
