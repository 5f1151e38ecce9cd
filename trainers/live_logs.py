"""What can be watched while a run trains: TensorBoard's files, and Weights & Biases if wanted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from dassl.data.transforms import build_transform
from torch import Tensor

from datasets.pictures import open_picture
from models.spotlighter import LEVELS, SpotlighterHead
from trainers.event_files import cut
from trainers.kept_picture import draw, one_a_class, to_pixels
from trainers.pictures import upright

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer

logger = logging.getLogger(__name__)

PICTURES = 4
KEPT = "kept_patches"


class Writers:
    """Several writers as one, for `write_scalar` and this module."""

    def __init__(self, writers: Sequence[Any]) -> None:
        """Pass everything on to these."""
        self.writers = writers

    def add_scalar(self, *args: Any) -> None:
        """A number."""
        for writer in self.writers:
            writer.add_scalar(*args)

    def add_image(self, *args: Any, dataformats: str) -> None:
        """A picture."""
        for writer in self.writers:
            writer.add_image(*args, dataformats=dataformats)

    def close(self) -> None:
        """Close them all."""
        for writer in self.writers:
            writer.close()


def make_ready(trainer: CLIPTrainer, log_dir: Path) -> None:
    """Before TensorBoard's file is opened: earlier ones keep what the run will not write again."""
    cut(log_dir, trainer.start_epoch, len(trainer.train_loader_x))


def with_wandb(trainer: CLIPTrainer, writer: Any) -> Any:
    """TensorBoard's writer (None without the package), and one for Weights & Biases if wanted."""
    if trainer.cfg.TRAIN.WANDB == "off":
        return writer
    from trainers.wandb_log import WandbWriter

    return Writers([w for w in (writer, WandbWriter(trainer)) if w is not None])


def note_epoch(trainer: CLIPTrainer, writer: Any) -> None:
    """The scalars of the head, and what it keeps of a few fixed pictures; nothing without a head.

    Neither the random numbers of the run nor its parameters change.
    """
    head = getattr(trainer.model, "head", None)
    if writer is None or head is None:
        return
    scalars = head_scalars(head)
    values = torch.stack([value.detach().float() for value in scalars.values()]).tolist()
    for name, value in zip(scalars, values, strict=True):
        trainer.write_scalar(f"head/{name}", value, trainer.epoch)
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        picture = kept_patches(trainer)
    if picture is None:
        return
    try:
        writer.add_image(KEPT, picture, trainer.epoch, dataformats="HWC")
    except OSError as error:
        logger.warning("The logs are no longer written: %s", error)
        trainer.close_writer()


def head_scalars(head: SpotlighterHead) -> dict[str, Tensor]:
    """The learned scalars of a head by name, as gate and level/global."""
    ranks = [f"rank_{rank}" for rank in range(1, head.options.num_keep + 1)]
    parts = {
        "level": LEVELS,
        "mix": ("image", "text"),
        "text_gain": ("global", "level_1", "level_2"),
        "image_gain": ranks,
        "pair": [*ranks, "fused"],
    }
    named = {
        f"{part}/{name}": value
        for part, names in parts.items()
        for name, value in zip(names, getattr(head, part), strict=True)
    }
    return {"gate": head.gate, **named}


@torch.no_grad()
def kept_patches(trainer: CLIPTrainer) -> Any:
    """Draw validation pictures, else test pictures, of a few classes, and what is kept of each.

    Returns:
        (height, width, 3), 8 bits; None where no picture can be read.
    """
    dataset, cfg, model = trainer.dm.dataset, trainer.cfg, trainer.model
    transform: Any = build_transform(cfg, is_train=False)
    images, names = [], []
    for item in one_a_class(dataset.val or dataset.test, PICTURES):
        try:
            images.append(transform(open_picture(item.impath, upright(cfg))))
        except (OSError, ValueError):
            continue  # the evaluation says what is wrong with it
        names.append(item.classname)
    if not images:
        return None
    trainer.set_model_mode("eval")
    batch = torch.stack(images)
    with trainer.precision.autocast():
        out = model.analyse(batch.to(trainer.device))
    chances, best = out.logits.softmax(-1).max(-1)
    said = [
        f"{name}\nsaid: {trainer.class_names[i]} {chance:.0%}"
        for name, i, chance in zip(names, best.tolist(), chances.tolist(), strict=True)
    ]
    title = (
        f"{cfg.DATASET.NAME}, epoch {trainer.epoch + 1}: the patches kept, "
        "level 1 in yellow, level 2 in blue"
    )
    grid = round(model.base.visual.num_patches**0.5)
    pixels = to_pixels(batch, cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)
    kept, level1 = out.head.selection.indices, model.head.options.level1
    return draw(pixels, kept, grid, level1, said, title)
