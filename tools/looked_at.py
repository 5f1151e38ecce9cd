"""Pictures as a run's model sees them, and all that it says of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from dassl.data.transforms import build_transform
from torch import Tensor

from datasets.pictures import open_picture
from models.spotlighted_clip import SpotlightedOutput
from trainers.base import CLIPTrainer
from trainers.pictures import upright


@torch.no_grad()
def analyse(trainer: CLIPTrainer, paths: Sequence[str]) -> tuple[Tensor, SpotlightedOutput]:
    """Normalised pictures (B, 3, H, W), prepared as at test, and what the model says of them."""
    transform = build_transform(trainer.cfg, is_train=False)
    turn = upright(trainer.cfg)
    images = torch.stack([transform(open_picture(path, turn)) for path in paths])
    return images, trainer.model.analyse(images.to(trainer.device))
