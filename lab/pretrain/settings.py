"""The dials of the pretraining, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from clip.model import CLIP


@dataclass(frozen=True)
class Settings:
    """The training's dials.

    Attributes:
        minutes: how long to train; the schedule follows the clock, over all resumptions.
        save_minutes: between checkpoints (each with an asset and a validation).
        steps: stop after so many steps in this process; 0 for no such limit.
    """

    minutes: float = 60.0
    batch_size: int = 192
    vision_width: int = 128
    vision_layers: int = 4
    text_width: int = 128
    text_layers: int = 4
    joint: int = 128
    muon_lr: float = 0.02
    adam_lr: float = 0.0015
    weight_decay: float = 0.02
    save_minutes: float = 3.0
    steps: int = 0
    seed: int = 0
    workers: int = 1
    compiled: bool = True
    validate: bool = True


def build_clip(settings: Settings, vocabulary: int) -> CLIP:
    """Return an untrained CLIP of 64-pixel pictures and 8-pixel patches."""
    model = CLIP(
        embed_dim=settings.joint,
        image_resolution=64,
        vision_layers=settings.vision_layers,
        vision_width=settings.vision_width,
        vision_patch_size=8,
        context_length=77,
        vocab_size=vocabulary,
        transformer_width=settings.text_width,
        transformer_heads=settings.text_width // 64,
        transformer_layers=settings.text_layers,
    )
    model.logit_scale.data.fill_(torch.tensor(1 / 0.07).log())  # as CLIP starts
    return model


def learning_share(progress: float) -> float:
    """Return the share of the full learning rate: up within 1 %, level, down from 40 % on."""
    return min(1.0, progress / 0.01 + 0.02, max(0.0, (1 - progress) / 0.6))
