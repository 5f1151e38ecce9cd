"""CLIP as a run's config names it."""

from __future__ import annotations

from torch import nn
from yacs.config import CfgNode

from models.loading import load_clip


def load_backbone(settings: CfgNode, name: str = "") -> nn.Module:
    """Load CLIP.

    Args:
        settings: the node MODEL.
        name: of another backbone than MODEL.BACKBONE.NAME, as a teacher's.
    """
    backbone = settings.BACKBONE
    return load_clip(
        name or backbone.NAME, pretrained=backbone.PRETRAINED, trust=settings.TRUST_WEIGHTS
    )
