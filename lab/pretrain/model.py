"""The tiny CLIP in training: its two towers, run fast, and its loss.

The parameters stay those of a `clip.model.CLIP`; only the arithmetic is arranged anew: batch first,
patches dropped before the first layer (FLIP, Li et al., CVPR 2023), a short context. Without
dropping, the results are CLIP's.
"""

import torch
import torch.nn.functional as F
from clip.model import CLIP, ResidualAttentionBlock
from jaxtyping import Float, Int
from torch import Tensor, nn

from lab.pretrain.batches import Batch

CLASS_WEIGHT = 1.0
DENSE_WEIGHT = 0.2
IGNORED = -100


class PretrainingLoss(nn.Module):
    """CLIP's loss, an auxiliary class head that is thrown away, and a dense term.

    The dense term asks each patch that shows the object to prefer its own caption.
    """

    def __init__(self, model: CLIP, num_concepts: int) -> None:
        super().__init__()
        self.model = model
        self.head = nn.Linear(model.visual.output_dim, num_concepts)

    def forward(
        self, batch: Batch, kept: Int[Tensor, "B K"] | None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss, and the share of pictures that choose their own caption (0-1)."""
        tokens = encode_image(self.model, batch.pixels, kept)
        embedded = self.model.token_embedding(batch.tokens)
        text = F.normalize(encode_text(self.model, embedded, batch.ends), dim=-1)
        scale = self.model.logit_scale.exp()
        own = torch.arange(len(text))
        logits = scale * F.normalize(tokens[:, 0], dim=-1) @ text.T
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        loss = loss + CLASS_WEIGHT * F.cross_entropy(self.head(tokens[:, 0]), batch.concepts)
        on_object = batch.on_object if kept is None else batch.on_object.gather(1, kept)
        dense = scale.detach() * F.normalize(tokens[:, 1:], dim=-1) @ text.T  # (B, K, B)
        target = torch.where(on_object, own[:, None], IGNORED)
        patch_loss = F.cross_entropy(
            dense.flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="sum"
        ) / on_object.sum().clamp(min=1)
        right = (logits.argmax(1) == own).float().mean()
        return loss + DENSE_WEIGHT * patch_loss, right


def _norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)


def run_block(
    block: ResidualAttentionBlock, x: Float[Tensor, "B L W"], *, causal: bool
) -> Float[Tensor, "B L W"]:
    """Apply one of CLIP's transformer blocks, batch first."""
    B, L, W = x.shape
    H = block.attn.num_heads
    qkv = F.linear(_norm(block.ln_1, x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    # By hand: at these short lengths plain products beat the fused kernel on a CPU.
    q, k, v = qkv.view(B, L, 3, H, W // H).permute(2, 0, 3, 1, 4).reshape(3, B * H, L, W // H)
    score = torch.bmm(q, k.transpose(1, 2)) * (W // H) ** -0.5
    if causal:
        score = score + torch.full((L, L), -torch.inf, dtype=score.dtype).triu(1)
    attended = torch.bmm(score.softmax(-1).to(v.dtype), v).view(B, H, L, W // H)
    attended = attended.transpose(1, 2).reshape(B, L, W)
    x = x + F.linear(attended, block.attn.out_proj.weight, block.attn.out_proj.bias)
    return x + block.mlp(_norm(block.ln_2, x))


def encode_image(
    model: CLIP, pixels: Float[Tensor, "B 3 S S"], kept: Int[Tensor, "B K"] | None = None
) -> Float[Tensor, "B 1+K D"]:
    """The projected class token and patch tokens, not of unit length; `kept`: patches to show."""
    visual = model.visual
    B, _, S, _ = pixels.shape
    P = visual.conv1.kernel_size[0]
    x = pixels.reshape(B, 3, S // P, P, S // P, P).permute(0, 2, 4, 1, 3, 5)
    x = x.reshape(B, (S // P) ** 2, 3 * P * P)
    position = visual.positional_embedding[1:].expand(B, -1, -1)
    if kept is not None:
        x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[2]))
        position = position.gather(1, kept[..., None].expand(-1, -1, position.shape[2]))
    x = F.linear(x, visual.conv1.weight.flatten(1)) + position
    first = visual.class_embedding + visual.positional_embedding[0]
    x = torch.cat([first.to(x.dtype).expand(B, 1, -1), x], 1)
    x = _norm(visual.ln_pre, x)
    for block in visual.transformer.resblocks:
        x = run_block(block, x, causal=False)
    return _norm(visual.ln_post, x) @ visual.proj


def encode_text(
    model: CLIP, embedded: Float[Tensor, "B L W"], ends: Int[Tensor, "B"]
) -> Float[Tensor, "B D"]:
    """The projected features of captions, not of unit length.

    `embedded` are token embeddings without positions, `ends` the place of each end token.
    """
    x = embedded + model.positional_embedding[: embedded.shape[1]]
    for block in model.transformer.resblocks:
        x = run_block(block, x, causal=True)
    x = x[torch.arange(len(x)), ends]
    return _norm(model.ln_final, x) @ model.text_projection
