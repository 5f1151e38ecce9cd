"""Notice a loss or a parameter that is no number, at the step, and say where it happened."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from dassl.metrics import compute_accuracy
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from models.classifier import Step
from models.clip.plain_files import not_finite
from runs.files import last_checkpoint

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer

logger = logging.getLogger(__name__)

NAMED = 3  # pictures in the sentence; the log has all


def require_pairs(trainer: CLIPTrainer) -> None:
    """Refuse batches of one picture where a layer normalises over the batch.

    Raises:
        ValueError: names the key, or says that there is one training picture.
    """
    norms = any(isinstance(part, nn.BatchNorm1d) for part in trainer.model.learned.modules())
    batches: Any = trainer.train_loader_x.batch_sampler
    if norms and min(batches.batch_size, len(batches.sampler)) < 2:
        why = "DATALOADER.TRAIN_X.BATCH_SIZE is 1"
        if len(batches.sampler) < 2:
            why = "there is one training picture (DATASET.NUM_SHOTS)"
        raise ValueError(
            f"{trainer.cfg.TRAINER.NAME} normalises over the pictures of a batch, which needs two "
            f"or more, and {why}"
        )


def numbers_of_step(
    trainer: CLIPTrainer, batch: dict[str, Any], step: Step, loss: Tensor
) -> dict[str, float]:
    """Loss, batch accuracy in percent, the loss's parts where there are several; checked.

    They are brought from the device at once.

    Args:
        trainer: after the optimiser's step.
        batch: of the step.
        step: what the model found.
        loss: the sum of its parts.

    Raises:
        FloatingPointError: the loss, or a learned parameter, is infinite or not a number.
    """
    numbers = {"loss": loss, "acc": compute_accuracy(step.logits, step.target.label)[0]}
    if len(step.losses) > 1:
        numbers |= {f"loss_{name}": part for name, part in step.losses.items()}
    learned = [p.detach() for group in trainer.optim.param_groups for p in group["params"]]
    size = parameters_to_vector(learned).norm()  # finite only if all of them are
    found = [number.detach().float().reshape(()) for number in (size, *numbers.values())]
    size_now, *values = torch.stack(found).tolist()
    if not math.isfinite(values[0]) or not math.isfinite(size_now):
        what = "a learned parameter" if math.isfinite(values[0]) else f"the loss ({values[0]})"
        raise FloatingPointError(_report(trainer, what, batch["impath"]))
    return dict(zip(numbers, values, strict=True))


def require_finite_state(trainer: CLIPTrainer, state: dict[str, Any]) -> None:
    """Refuse to save what is no number.

    Raises:
        FloatingPointError: names what it is.
    """
    if wrong := not_finite(state):
        raise FloatingPointError(_report(trainer, f"{', '.join(wrong)} (to be saved)", []))


def require_finite_scores(trainer: CLIPTrainer, scores: Tensor, batch: dict[str, Any]) -> None:
    """Refuse to count pictures by scores that are no numbers.

    Raises:
        FloatingPointError: names pictures of the batch.
    """
    if not torch.isfinite(scores).all():
        raise FloatingPointError(
            f"the scores of a batch are infinite or not a number, on {_some(batch['impath'])} "
            f"(precision {trainer.settings.PREC}); choose PREC fp32 or bf16, or other weights"
        )


def _some(files: list[str]) -> str:
    more = f", ... {len(files)} in all, see log.txt" if len(files) > NAMED else ""
    if more:
        logger.error("The pictures of the batch:\n%s", "\n".join(files))
    return f"{', '.join(files[:NAMED])}{more}"


def _report(trainer: CLIPTrainer, what: str, files: list[str]) -> str:
    place = f"epoch {trainer.epoch + 1}/{trainer.max_epoch}"
    if files:
        place += f", batch {trainer.batch_idx + 1}/{trainer.num_batches}"
        place += f", on {_some(files)}"
    kept = last_checkpoint(Path(trainer.output_dir))
    return (
        f"{what} is infinite or not a number in {place} (learning rate "
        f"{trainer.get_current_lr():.4g}, precision {trainer.settings.PREC}); lower OPTIM.LR, or "
        f"choose PREC fp32 or bf16; "
        + (f"the last good checkpoint is {kept}" if kept else "no checkpoint was written yet")
    )
