"""Pictures as a run's model sees them, and all that it says of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from dassl.data.transforms import build_transform
from PIL import Image
from torch import Tensor

from models.spotlighted_clip import SpotlightedOutput
from trainers.base import CLIPTrainer


@torch.no_grad()
def analyse(trainer: CLIPTrainer, paths: Sequence[str]) -> tuple[Tensor, SpotlightedOutput]:
    """Normalised pictures (B, 3, H, W), prepared as at test, and what the model says of them."""
    transform = build_transform(trainer.cfg, is_train=False)
    images = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
    return images, trainer.model.analyse(images.to(trainer.device))
