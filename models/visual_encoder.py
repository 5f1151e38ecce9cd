"""Image -> class token and patch tokens in the joint space of image and text."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.blocks import (
    BeforeBlock,
    class_token_attention,
    run_block,
    run_blocks,
    unit,
    value_path,
)


class VisualTokens(NamedTuple):
    """What the image tower saw. B images, N patches, D joint width; features are unit length."""

    cls: Float[Tensor, "B D"]
    patches: Float[Tensor, "B N D"] | None = None
    cls_attention: Float[Tensor, "B N"] | None = None
    """Class-token attention of the last block over the patches, mean of heads, positive."""


class VisualEncoder(nn.Module):
    """CLIP's vision transformer with a seam before every block.

    Differs from `clip.model.VisionTransformer` in: `before_block(depth, x)` may change the tokens
    on their way into block `depth` (counted from 0), and the patches can be returned as well.
    With the seam unused the class feature equals `unit(visual(image))`.
    """

    num_prefix_tokens = 1  # the class token stands before the patches
    has_patches = True

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    @property
    def num_patches(self) -> int:
        """N, the patches of one image at the tower's own resolution."""
        return self.visual.positional_embedding.shape[0] - self.num_prefix_tokens

    def embed(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B L Wv"]:
        """Patch embedding, class token, positions, `ln_pre`: what enters block 0."""
        visual = self.visual
        patches = visual.conv1(image.to(visual.conv1.weight.dtype))  # (B, Wv, grid, grid)
        patches = patches.flatten(2).transpose(1, 2)  # (B, N, Wv)
        cls = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        x = torch.cat([cls, patches], dim=1)  # (B, 1 + N, Wv)
        return visual.ln_pre(x + visual.positional_embedding.to(x.dtype))

    def project(self, x: Float[Tensor, "*shape Wv"]) -> Float[Tensor, "*shape D"]:
        """`ln_post` and `proj`, unit length, float32."""
        return unit(self.visual.ln_post(x) @ self.visual.proj)

    def forward(
        self,
        image: Float[Tensor, "B 3 H W"],
        before_block: BeforeBlock | None = None,
        patch_path: str | None = None,
    ) -> VisualTokens:
        """Encode images.

        Args:
            image: normalised pictures at the tower's resolution.
            before_block: seam, see `models.blocks.BeforeBlock`.
            patch_path: None for the class token alone; "value" for the last block's value vectors
                through its output projection (MaskCLIP); "raw" for the last block's output.

        Returns:
            Unit-length features; `patches` and `cls_attention` only where `patch_path` is given.
        """
        *early, last = self.visual.transformer.resblocks
        x = run_blocks(early, self.embed(image), before_block=before_block)
        if before_block is not None:
            x = before_block(len(early), x)
        out = run_block(last, x)
        # One call for the class token's row, the same with and without patches: equal bits.
        cls = self.project(out[:, 0])
        if patch_path is None:
            return VisualTokens(cls)
        kept = slice(self.num_prefix_tokens, None)
        patches = value_path(last, x) if patch_path == "value" else out
        attention = class_token_attention(last, x)
        return VisualTokens(cls, self.project(patches[:, kept]), attention[:, kept])


class ResNetEncoder(nn.Module):
    """CLIP's ModifiedResNet: one feature an image and no patch tokens."""

    has_patches = False

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(
        self,
        image: Float[Tensor, "B 3 H W"],
        before_block: None = None,
        patch_path: None = None,
    ) -> VisualTokens:
        """Encode images; only `cls`, the attention-pooled feature: no blocks and no patches."""
        return VisualTokens(unit(self.visual(image.to(self.visual.conv1.weight.dtype))))


def build_visual_encoder(visual: nn.Module) -> VisualEncoder | ResNetEncoder:
    """The encoder that fits CLIP's image tower."""
    return VisualEncoder(visual) if hasattr(visual, "transformer") else ResNetEncoder(visual)
