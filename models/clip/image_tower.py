"""Image -> class token and patch tokens in the joint space of image and text."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.clip.blocks import (
    BeforeBlock,
    attend_with_map,
    mlp,
    read_class_token,
    run_block,
    unit,
)
from models.clip.prune import PatchLayout, Pruner


class VisualTokens(NamedTuple):
    """What the image tower gives. B images, N patches, D joint width."""

    cls: Float[Tensor, "B D"]
    patches: Float[Tensor, "B N D"] | None = None  # all, or those that a pruned tower kept
    cls_attention: Float[Tensor, "B N"] | None = None  # of the last block, mean of heads, positive
    positions: Int[Tensor, "B N"] | None = None  # in the picture, row by row from 0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> VisualTokens:
        """The same on a device."""
        moved = (None if x is None else x.to(device, non_blocking=non_blocking) for x in self)
        return VisualTokens._make(moved)

    def rows(self, places: Tensor | list[int]) -> VisualTokens:
        """Those of some images, by place or by mask."""
        return VisualTokens._make(None if x is None else x[places] for x in self)

    def unit(self) -> VisualTokens:
        """The same with features of unit length, float32."""
        patches = None if self.patches is None else unit(self.patches)
        return self._replace(cls=unit(self.cls), patches=patches)


def stack(seen: list[VisualTokens]) -> VisualTokens:
    """The tokens of several batches in one."""
    if len(seen) == 1:
        return seen[0]
    columns = zip(*seen, strict=True)
    return VisualTokens._make(None if c[0] is None else torch.cat(c) for c in columns)


class VisualEncoder(nn.Module):
    """CLIP's vision transformer with a seam before every block.

    Unlike `clip.model.VisionTransformer`: `before_block(depth, x)` may change the tokens that enter
    block `depth` (from 0), learned tokens may stand behind the patches, a pruner may drop patches,
    and patches are returned where asked for. Unused, the class feature equals `visual(image)`.
    """

    num_prefix_tokens = 1  # the class token stands before the patches

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    @property
    def num_patches(self) -> int:
        """N, the patches of one image at the tower's own resolution."""
        return self.visual.positional_embedding.shape[0] - self.num_prefix_tokens

    @property
    def num_blocks(self) -> int:
        """Transformer blocks of the tower."""
        return len(self.visual.transformer.resblocks)

    def embed(
        self, image: Float[Tensor, "B 3 H W"], prompts: Float[Tensor, "M Wv"] | None = None
    ) -> Float[Tensor, "B L Wv"]:
        """Class token, patches, their positions, then `prompts`; `ln_pre`: what enters block 0."""
        visual = self.visual
        patches = visual.conv1(image.to(visual.conv1.weight.dtype))  # (B, Wv, grid, grid)
        patches = patches.flatten(2).transpose(1, 2)  # (B, N, Wv)
        cls = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        x = torch.cat([cls, patches], dim=1)  # (B, 1 + N, Wv)
        x = x + visual.positional_embedding.to(x.dtype)
        if prompts is not None:
            own = prompts.to(x.dtype).expand(x.shape[0], -1, -1)
            x = torch.cat([x, own], dim=1)  # (B, 1 + N + M, Wv)
        return visual.ln_pre(x)

    def project(self, x: Float[Tensor, "*shape Wv"]) -> Float[Tensor, "*shape D"]:
        """`ln_post` and `proj`."""
        return self.visual.ln_post(x) @ self.visual.proj

    def forward(
        self, image: Float[Tensor, "B 3 H W"], before_block: BeforeBlock | None = None,
        patch_path: str | None = None, prompts: Float[Tensor, "M Wv"] | None = None,
        pruner: Pruner | None = None,
    ) -> VisualTokens:
        """Encode normalised pictures at the tower's resolution; features not unit length.

        `patch_path` is None for the class token alone, "value" for the last block's value vectors
        through its output projection (MaskCLIP), "raw" for the last block's output. `prompts` are
        learned tokens behind the patches; they are not returned.
        """
        *early, last = self.visual.transformer.resblocks
        x = self.embed(image, prompts)
        layout = PatchLayout(torch.arange(self.num_patches, device=x.device).expand(x.shape[0], -1))
        for depth, block in enumerate(early):
            x = x if before_block is None else before_block(depth, x)
            if pruner is None or depth not in pruner.at:
                x = run_block(block, x)
                continue
            mixed, attention = attend_with_map(block.attn, block.ln_1(x))
            x, layout = pruner(pruner.at.index(depth), x + mixed, attention, layout)
            x = x + mlp(block, x)
        x = x if before_block is None else before_block(len(early), x)
        cls, value, attention = read_class_token(last, x)
        cls = self.project(cls)
        if patch_path is None:
            return VisualTokens(cls)
        patches = last.attn.out_proj(value) if patch_path == "value" else run_block(last, x)
        patches = self.project(layout.split(patches)[1])
        kept = slice(self.num_prefix_tokens, self.num_prefix_tokens + patches.shape[1])
        return VisualTokens(cls, patches, attention[:, kept], layout.positions)


class ResNetEncoder(nn.Module):
    """CLIP's ModifiedResNet: one feature an image, no blocks and no patch tokens."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(
        self, image: Float[Tensor, "B 3 H W"], patch_path: None = None, pruner: None = None
    ) -> VisualTokens:
        """The attention-pooled feature."""
        return VisualTokens(self.visual(image.to(self.visual.conv1.weight.dtype)))


def build_visual_encoder(visual: nn.Module) -> VisualEncoder | ResNetEncoder:
    """The encoder that fits CLIP's image tower."""
    return VisualEncoder(visual) if hasattr(visual, "transformer") else ResNetEncoder(visual)


def require_vit(visual: nn.Module) -> nn.Module:
    """CLIP's image tower; ValueError if it is a ResNet."""
    if not hasattr(visual, "transformer"):
        raise ValueError(
            "this trainer, or MODEL.PRUNE, works on the tokens of the image tower, and a ResNet "
            "backbone has none; choose a ViT (MODEL.BACKBONE.NAME), or for a ResNet a trainer of "
            "text prompts alone, as CoOp, and no MODEL.PRUNE"
        )
    return visual


def require_blocks(tower: nn.Module, depth: int, key: str) -> None:
    """Raise ValueError if a tower has fewer blocks than TRAINER.`key` asks for."""
    if depth > tower.num_blocks:
        raise ValueError(
            f"TRAINER.{key} must not be above {tower.num_blocks} for this backbone, got {depth}"
        )
