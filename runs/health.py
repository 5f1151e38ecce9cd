"""Stop at a loss, a parameter or a score that is not finite, and name the place."""

import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from yacs.config import CfgNode

from models.classifier import Step
from models.clip.plain_files import not_finite
from runs.files import last_checkpoint
from runs.state import RunState

logger = logging.getLogger(__name__)

NAMED = 3  # pictures in the sentence; the log has all


def require_pairs(cfg: CfgNode, learned: nn.Module, loader: Any) -> None:
    """Refuse batches of one picture where a layer normalises over the batch."""
    norms = any(isinstance(part, nn.BatchNorm1d) for part in learned.modules())
    batches = loader.batch_sampler
    if norms and min(batches.batch_size, len(batches.sampler)) < 2:
        why = "DATALOADER.TRAIN_X.BATCH_SIZE is 1"
        if len(batches.sampler) < 2:
            why = "there is one training picture (DATASET.NUM_SHOTS)"
        raise ValueError(
            f"{cfg.TRAINER.NAME} normalises over the pictures of a batch, which needs two or more, "
            f"and {why}"
        )


def numbers_of_step(
    cfg: CfgNode, state: RunState, step: Step, loss: Tensor, files: list[str], place: str
) -> dict[str, float]:
    """Loss, batch accuracy in percent, and the parts of the loss if there are several.

    They are copied from the device at once, after the optimiser's step. FloatingPointError names
    the batch (`place`, `files`) if the loss or a learned parameter is infinite or not a number.
    """
    hits = (step.logits.argmax(-1) == step.target.label).float().sum()
    numbers = {"loss": loss, "acc": hits * (100 / len(step.logits))}
    if len(step.losses) > 1:
        numbers |= {f"loss_{name}": part for name, part in step.losses.items()}
    if step.general is not None:
        numbers["loss_general"] = step.general.loss
    learned = [p.detach() for group in state.optimiser.param_groups for p in group["params"]]
    size = parameters_to_vector(learned).norm()  # finite only if all of them are
    found = [number.detach().float().reshape(()) for number in (size, *numbers.values())]
    size_now, *values = torch.stack(found).tolist()
    if not math.isfinite(values[0]) or not math.isfinite(size_now):
        what = "a learned parameter" if math.isfinite(values[0]) else f"the loss ({values[0]})"
        raise FloatingPointError(_sentence(cfg, state, what, f", {place}, on {_some(files)}"))
    return dict(zip(numbers, values, strict=True))


def require_finite_state(cfg: CfgNode, state: RunState, saved: dict[str, Any]) -> None:
    """Refuse to save what is not finite."""
    if wrong := not_finite(saved):
        raise FloatingPointError(_sentence(cfg, state, f"{', '.join(wrong)} (to be saved)"))


def require_finite_scores(scores: Tensor, files: list[str], precision: str) -> None:
    """Refuse to count pictures by scores that are not finite."""
    if not torch.isfinite(scores).all():
        raise FloatingPointError(
            f"the scores of a batch are infinite or not a number, on {_some(files)} "
            f"(precision {precision}); choose PREC fp32 or bf16, or other weights"
        )


def require_finite_features(features: Tensor, precision: str) -> None:
    """Refuse to compute anything from features of training pictures that are not finite."""
    if not torch.isfinite(features).all():
        raise FloatingPointError(
            "the features of a training picture are infinite or not a number (precision "
            f"{precision}); choose PREC fp32 or bf16, or other weights"
        )


def _some(files: list[str]) -> str:
    if len(files) <= NAMED:
        return ", ".join(files)
    logger.error("The pictures of the batch:\n%s", "\n".join(files))
    return f"{', '.join(files[:NAMED])}, ... {len(files)} in all, see log.txt"


def _sentence(cfg: CfgNode, state: RunState, what: str, batch: str = "") -> str:
    wrong = f"{what} is infinite or not a number"
    if state.optimiser is None:  # computed at once
        return f"{wrong} (precision {state.precision.name}); choose PREC fp32 or bf16"
    rate, kept = state.optimiser.param_groups[0]["lr"], last_checkpoint(Path(cfg.OUTPUT_DIR))
    left = f"the last good checkpoint is {kept}" if kept else "no checkpoint was written yet"
    return (
        f"{wrong} in epoch {state.epoch + 1}/{cfg.OPTIM.MAX_EPOCH}"
        f"{batch} (learning rate {rate:.4g}, precision {state.precision.name}); lower OPTIM.LR, or "
        f"choose PREC fp32 or bf16; {left}"
    )
