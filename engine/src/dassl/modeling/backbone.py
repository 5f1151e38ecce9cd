"""Backbones: pictures (B, 3, H, W) to features (B, out_features)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from dassl.utils import Registry, build_registered
from torch import nn
from torchvision import models

__all__ = ["BACKBONE_REGISTRY", "Backbone", "build_backbone"]

BACKBONE_REGISTRY = Registry("BACKBONE")

# Name and the layer whose output are the classes of ImageNet.
LAST_LAYERS = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), "fc"),
    **dict.fromkeys(("alexnet", "vgg16"), "classifier.6"),
    **{f"efficientnet_b{size}": "classifier.1" for size in range(8)},
}


class Backbone(nn.Module):
    """A base class: a subclass sets ``_out_features`` and defines ``forward``."""

    _out_features: int | None = None

    @property
    def out_features(self) -> int | None:
        """Size of a feature."""
        return self._out_features


def _torchvision(name: str, pretrained: bool = True, **kwargs: Any) -> nn.Module:
    """Build a network of torchvision without its last layer.

    Args:
        name: Its name, which is torchvision's.
        pretrained: Fetch the weights that torchvision calls IMAGENET1K_V1.
        kwargs: Ignored.
    """
    model: nn.Module = models.get_model(name, weights="IMAGENET1K_V1" if pretrained else None)
    *path, last = LAST_LAYERS[name].split(".")
    layer = model.get_submodule(LAST_LAYERS[name])
    setattr(model.get_submodule(".".join(path)), last, nn.Identity())
    model.out_features = layer.in_features
    return model


for _name in LAST_LAYERS:
    _build: Callable[..., nn.Module] = partial(_torchvision, _name)
    _build.__name__ = _name
    BACKBONE_REGISTRY.register(_build)

build_backbone = partial(build_registered, BACKBONE_REGISTRY, "backbone")
