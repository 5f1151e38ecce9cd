"""Weights & Biases beside TensorBoard: the same numbers and pictures, a row a batch."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.splits import read_json
from trainers.config_rules import flat
from trainers.output_folder import write_text

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer

SENT = "wandb.json"  # in the output folder: the run's id there, and the last row that was sent
ROWS = 100  # that may wait within an epoch


def _sent(path: Path) -> tuple[str, int]:
    found = read_json(path)
    known = found if isinstance(found, dict) else {}
    name, step = known.get("id"), known.get("step")
    if not isinstance(name, str) or type(step) is not int:
        raise ValueError(f"{path} lacks id and step; remove it to begin a new run there")
    return name, step


class WandbWriter:
    """Takes what a SummaryWriter takes, and sends a row for each batch that has numbers.

    A row is sent when the next one begins; up to `ROWS` wait for the end of their epoch. What was
    sent is written down, so a run that goes on sends nothing twice.
    """

    def __init__(self, trainer: CLIPTrainer) -> None:
        """Begin the run there, or go on with it.

        Raises:
            ValueError: it cannot be begun, as without an account.
        """
        import wandb

        cfg, self.batches = trainer.cfg, len(trainer.train_loader_x)
        self.file = Path(cfg.OUTPUT_DIR) / SENT
        self.id, self.sent = secrets.token_hex(4), -1
        if trainer.start_epoch and self.file.is_file():
            self.id, self.sent = _sent(self.file)
        self.rows: dict[int, dict[str, Any]] = {}
        self.picture = wandb.Image
        try:
            self.run = wandb.init(
                id=self.id,
                resume="allow" if cfg.TRAIN.WANDB == "online" else None,
                mode=cfg.TRAIN.WANDB,
                project=os.environ.get("WANDB_PROJECT", "spotlighter"),
                name=f"{cfg.TRAINER.NAME} {cfg.DATASET.LABEL} seed {cfg.SEED}",
                config=flat(cfg),
                dir=cfg.OUTPUT_DIR,
                settings=wandb.Settings(silent=True, console="off", disable_git=True),
            )
        except wandb.Error as error:
            raise ValueError(
                f"TRAIN.WANDB {cfg.TRAIN.WANDB}: Weights & Biases says: {error}; "
                "TRAIN.WANDB offline writes files that `wandb sync` sends later"
            ) from error

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """A number; see `add`."""
        self.add(tag, value, step)

    def add_image(self, tag: str, picture: np.ndarray, step: int, dataformats: str) -> None:
        """A picture (height, width, 3) of 8 bits; see `add`."""
        self.add(tag, self.picture(picture), step)

    def add(self, tag: str, value: Any, step: int) -> None:
        """Put a value into its row.

        Args:
            tag: its name; under `train/` steps count batches, elsewhere epochs.
            value: number or picture.
            step: which batch, or which epoch, whose last batch is then meant.
        """
        row = step if tag.startswith("train/") else (step + 1) * self.batches - 1
        if row <= self.sent:
            return
        if row not in self.rows and self.rows and (len(self.rows) >= ROWS or self.epoch_is_over()):
            self.send()
        self.rows.setdefault(row, {"epoch": (row + 1) / self.batches})[tag] = value

    def epoch_is_over(self) -> bool:
        """Whether the rows that wait end with that of an epoch's last batch."""
        return (max(self.rows) + 1) % self.batches == 0

    def send(self) -> None:
        """Send the rows that wait, and write down how far that was."""
        for row, values in self.rows.items():
            self.run.log(values, step=row)
        self.sent = max(self.rows, default=self.sent)
        self.rows.clear()
        write_text(self.file, json.dumps({"id": self.id, "step": self.sent}) + "\n")

    def close(self) -> None:
        """Send what waits and end the run there."""
        self.send()
        self.run.finish()
