"""What can be watched while a run trains: TensorBoard's files, and Weights & Biases if wanted."""

import io
import json
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dassl.data.transforms import build_transform
from torch import Tensor
from yacs.config import CfgNode

from datasets.pictures import open_picture
from datasets.splits import read_json
from models.spotlighter import LEVELS
from models.spotlighter.head import SpotlighterHead
from runs import rng
from runs.config_rules import flat
from runs.data import upright
from runs.draw import draw, one_a_class, to_pixels
from runs.files import write_bytes, write_text
from runs.state import RunState

PICTURES = 4
KEPT = "kept_patches"
SENT = "wandb.json"  # in the output folder: the run's id there, and the last row that was sent
ROWS = 100  # that may wait within an epoch

logger = logging.getLogger(__name__)


def remove_later_events(folder: Path, epochs: int, batches: int) -> None:
    """Take what was logged after some epochs out of TensorBoard's files; empty ones are removed.

    Dassl counts tags under `train/` in batches, all others in epochs. (`purge_step` knows one
    count, and hides points in TensorBoard alone.)
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        return  # without the package nothing is logged
    for path in sorted(folder.glob("events.out.tfevents.*")):
        events = [Event.FromString(record) for record in _records(path)]
        kept = [event for event in events if _keep(event, epochs, batches)]
        content = io.BytesIO()
        for event in kept:
            RecordWriter(content).write(event.SerializeToString())
        if not any(event.HasField("summary") for event in kept):
            path.unlink()
        elif content.tell() < path.stat().st_size:
            write_bytes(path, content.getvalue())


def _records(path: Path) -> Iterator[bytes]:
    """The records of a file, up to one that a kill has left unfinished."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    with suppress(Exception):  # TensorBoard raises its own, by what is damaged
        yield from RawEventFileLoader(str(path)).Load()


def _keep(event: Any, epochs: int, batches: int) -> bool:
    """Take out the values that will be written again; False where none is left."""
    values = event.summary.value
    if not values:
        return True  # the head of the file
    done = {"train": epochs * batches, "test": 0}  # the final evaluation is always to come
    stay = [v for v in values if event.step < done.get(v.tag.split("/")[0], epochs)]
    del values[:]
    values.extend(stay)
    return bool(stay)


def _sent(path: Path) -> tuple[str, int]:
    match read_json(path):
        case {"id": str(name), "step": int(step)}:
            return name, step
    raise ValueError(f"{path} lacks id and step; remove it to begin a new run there")


class WandbWriter:
    """A SummaryWriter (`local`, if any) that also sends a row for each batch that has numbers.

    Up to `ROWS` wait for the end of their epoch. What was sent is written down, so a run that goes
    on sends nothing twice. `sync_tensorboard=True` is not used: an epoch's values would get rows of
    their own.
    """

    def __init__(self, cfg: CfgNode, label: str, batches: int, done: int, local: Any) -> None:
        import wandb

        self.batches, self.local, self.picture = batches, local, wandb.Image
        self.file = Path(cfg.OUTPUT_DIR) / SENT
        self.id, self.sent = secrets.token_hex(4), -1
        if done and self.file.is_file():
            self.id, self.sent = _sent(self.file)
        self.rows: dict[int, dict[str, Any]] = {}
        try:
            self.run = wandb.init(
                id=self.id, resume="allow" if cfg.TRAIN.WANDB == "online" else None,
                mode=cfg.TRAIN.WANDB, project=os.environ.get("WANDB_PROJECT", "spotlighter"),
                name=f"{cfg.TRAINER.NAME} {label} seed {cfg.SEED}",
                config=flat(cfg) | {"DATASET.LABEL": label}, dir=cfg.OUTPUT_DIR,
                settings=wandb.Settings(silent=True, console="off", disable_git=True),
            )
        except wandb.Error as error:
            raise ValueError(
                f"TRAIN.WANDB {cfg.TRAIN.WANDB}: Weights & Biases says: {error}; "
                "TRAIN.WANDB offline writes files that `wandb sync` sends later"
            ) from error

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Log a number."""
        if self.local is not None:
            self.local.add_scalar(tag, value, step)
        self._add(tag, value, step)

    def add_image(self, tag: str, picture: np.ndarray, step: int, dataformats: str) -> None:
        """Log a picture (height, width, 3) of 8 bits."""
        if self.local is not None:
            self.local.add_image(tag, picture, step, dataformats=dataformats)
        self._add(tag, self.picture(picture), step)

    def _add(self, tag: str, value: Any, step: int) -> None:
        # under `train/` a step is a batch, elsewhere an epoch, whose last batch is meant
        row = step if tag.startswith("train/") else (step + 1) * self.batches - 1
        if row <= self.sent:
            return
        if row not in self.rows and self.rows:
            epoch_is_over = (max(self.rows) + 1) % self.batches == 0
            if epoch_is_over or len(self.rows) >= ROWS:
                self.send()
        self.rows.setdefault(row, {"epoch": (row + 1) / self.batches})[tag] = value

    def send(self) -> None:
        """Send the rows that wait, and write down which was the last."""
        for row, values in self.rows.items():
            self.run.log(values, step=row)
        self.sent = max(self.rows, default=self.sent)
        self.rows.clear()
        write_text(self.file, json.dumps({"id": self.id, "step": self.sent}) + "\n")

    def close(self) -> None:
        """Send what waits and end the run there."""
        if self.local is not None:
            self.local.close()
        self.send()
        self.run.finish()


def note_epoch(cfg: CfgNode, state: RunState, model: Any, writer: Any) -> None:
    """Log the scalars of the head and the patches that it keeps; the run is not changed."""
    head = model.head
    if writer is None or head is None:
        return
    scalars = head_scalars(head)
    values = torch.stack([value.detach().float() for value in scalars.values()]).tolist()
    for name, value in zip(scalars, values, strict=True):
        writer.add_scalar(f"head/{name}", value, state.epoch)
    with rng.unchanged():
        picture = kept_patches(cfg, state, model)
    if picture is not None:
        writer.add_image(KEPT, picture, state.epoch, dataformats="HWC")


def head_scalars(head: SpotlighterHead) -> dict[str, Tensor]:
    """The scalars of a head by name, as base and level/global."""
    ranks = [f"rank_{rank}" for rank in range(1, head.options.topk + 1)]
    parts = {
        "level": LEVELS, "mix": ("image", "text"), "text_gain": ("global", "level_1", "level_2"),
        "image_gain": ranks, "pair": [*ranks, "fused"],
    }
    named = {
        f"{part}/{name}": value
        for part, names in parts.items()
        for name, value in zip(names, getattr(head, part), strict=True)
    }
    return {"base": head.base, **named}


@torch.no_grad()
def kept_patches(cfg: CfgNode, state: RunState, model: Any) -> Any:
    """Draw what is kept of a few validation, else test pictures: (H, W, 3) of 8 bits, or None."""
    transform: Any = build_transform(cfg, is_train=False)
    images, names = [], []
    for item in one_a_class(state.dataset.val or state.dataset.test, PICTURES):
        with suppress(OSError, ValueError):  # the evaluation says what is wrong with it
            images.append(transform(open_picture(item.impath, upright(cfg))))
            names.append(item.classname)
    if not images:
        return None
    model.eval()
    batch = torch.stack(images)
    with state.precision.autocast():
        out = model.forward_all(batch.to(state.precision.device))
    chances, best = (out.logits / cfg.TEST.TEMPERATURE).softmax(-1).max(-1)
    captions = [
        f"{name}\nsaid: {state.class_names[i]} {chance:.0%}"
        for name, i, chance in zip(names, best.tolist(), chances.tolist(), strict=True)
    ]
    title = (
        f"{state.label}, epoch {state.epoch + 1}: the patches kept, "
        "level 1 in yellow, level 2 in blue"
    )
    grid = round(model.base.visual.num_patches**0.5)
    pixels = to_pixels(batch, cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)
    kept, level1 = out.head.selection.indices, model.head.options.level1
    return draw(pixels, kept, grid, level1, captions, title)
