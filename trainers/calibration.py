"""Passes over the training pictures before anything is learned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dassl.data.transforms import build_transform
from torch import Tensor
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from models.classifier import CLIPClassifier
from models.token_pruning import Scatter, TokenPruner
from models.visual_encoder import require_vit
from trainers.pictures import KeptPictures, readable

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer


def training_pictures(trainer: CLIPTrainer) -> Iterator[tuple[Tensor, Tensor]]:
    """Every training picture once, prepared as at test, and its label; in batches of the test."""
    cfg = trainer.cfg
    transform = build_transform(cfg, is_train=False)
    pictures = KeptPictures(cfg, trainer.dm.dataset.train_x, transform=transform)
    for batch in DataLoader(pictures, cfg.DATALOADER.TEST.BATCH_SIZE):
        batch = readable(trainer, batch, "train")
        if len(batch["img"]):
            yield trainer.parse_batch_test(batch)


def prepare(model: CLIPClassifier, settings: CfgNode) -> CLIPClassifier:
    """Encode text in chunks, prune, compile, as far as the node MODEL says so; returns the model.

    Raises:
        ValueError: the schedule contradicts itself, or does not fit the backbone.
    """
    model.text.chunk = settings.TEXT_CHUNK
    prune = settings.PRUNE
    if prune.AT or prune.KEEP:
        width = require_vit(model.visual.visual).conv1.out_channels
        schedule = {"at": tuple(prune.AT), "keep": tuple(prune.KEEP)}
        model.prune(TokenPruner(**schedule, width=width, mix=prune.MIX))
    if settings.COMPILE:
        model.visual.compile(backend=settings.COMPILE)
    return model


def calibrate_pruner(trainer: CLIPTrainer) -> None:
    """Learn from training pictures, without labels, which patches the last block selects."""
    model: Any = getattr(trainer.model, "base", trainer.model)
    if model.pruner is None or model.pruner.calibrated:
        return
    trainer.set_model_mode("eval")
    statistics = [Scatter() for _ in model.pruner.at]
    for image, _ in training_pictures(trainer):
        model.watch(image, statistics)
    model.pruner.calibrate(statistics)
