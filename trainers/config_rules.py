"""What values the keys of Dassl's part of a config may have; all faults are named at once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from yacs.config import CfgNode

Rule = tuple[Callable[[Any], bool], str]


def flat(cfg: CfgNode, prefix: str = "") -> dict[str, Any]:
    """All values by the full name of their key, as OPTIM.LR."""
    found: dict[str, Any] = {}
    for key, value in cfg.items():
        nested = isinstance(value, CfgNode)
        found |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return found


def numbers(count: int, least: float) -> Rule:
    """So many numbers, none below the least."""

    def fits(value: Any) -> bool:
        return len(value) == count and all(_is_number(v) and v >= least for v in value)

    return fits, f"{count} numbers" + (f" from {least:g} on" if least > -math.inf else "")


def at_least(least: float) -> Rule:
    """One number, not below the least."""
    return lambda value: _is_number(value) and value >= least, f"a number from {least:g} on"


def workers() -> Rule:
    """Processes of a loader: more than these take minutes to start, and no batch comes sooner."""
    most = max(64, 4 * (os.cpu_count() or 1))
    return lambda value: _is_number(value) and 0 <= value <= most, f"a number from 0 to {most}"


def wholes() -> Rule:
    """Any number of whole numbers from 0 on."""
    return lambda value: all(type(v) is int and v >= 0 for v in value), "whole numbers from 0 on"


def a_name() -> Rule:
    """Words on one line that can name a folder."""
    return lambda value: value.isprintable() and "/" not in value, "one line without a slash"
def one_of(*words: str) -> Rule:
    """One of a few words."""
    return lambda value: value in words, f"one of {', '.join(words)}"


def in_utf8() -> Rule:
    """A path whose name is UTF-8; TensorBoard writes to no other."""
    return lambda value: value.encode("utf-8", "replace").decode() == value, "a path in UTF-8"


def only(wanted: Any) -> Rule:
    """One value and no other: what Dassl can, and trainers of prompts cannot use."""
    return lambda value: value == wanted, f"{wanted} for these trainers"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


LOGS_ON_WANDB = ("off", "offline", "online")

RULES: dict[str, Rule] = {
    "OUTPUT_DIR": in_utf8(),
    "INPUT.SIZE": numbers(2, 1),
    "INPUT.PIXEL_MEAN": numbers(3, -math.inf),
    "INPUT.PIXEL_STD": numbers(3, 1e-6),
    "DATASET.LABEL": a_name(),
    "DATALOADER.NUM_WORKERS": workers(),
    "INPUT.RRCROP_SCALE": numbers(2, 0),
    "INPUT.EXIF": one_of("auto", "upright", "stored"),
    "INPUT.NO_TRANSFORM": only(False),
    "DATALOADER.K_TRANSFORMS": only(1),
    "DATALOADER.TRAIN_X.BATCH_SIZE": at_least(1),
    "DATALOADER.TEST.BATCH_SIZE": at_least(1),
    "OPTIM.LR": at_least(0),
    "OPTIM.WEIGHT_DECAY": at_least(0),
    "OPTIM.MAX_EPOCH": at_least(1),
    "TRAIN.PRINT_FREQ": at_least(1),
    "TRAIN.KEEP_CHECKPOINTS": at_least(0),
    "MODEL.PRUNE.AT": wholes(),
    "MODEL.PRUNE.KEEP": wholes(),
    "MODEL.TEXT_CHUNK": at_least(0),
}


def require_sound(cfg: CfgNode) -> None:
    """Check a whole config before anything is built.

    Raises:
        ValueError: names every key that has a value it cannot have.
    """
    values = flat(cfg)
    wrong = [
        f"{key} must be {expected}, got {values[key]!r}"
        for key, (fits, expected) in RULES.items()
        if not fits(values[key])
    ]
    backend = cfg.MODEL.COMPILE
    if backend:
        import torch._dynamo

        known = torch._dynamo.list_backends(exclude_tags=None)
        if backend not in known:
            wrong.append(f"MODEL.COMPILE must be one of {', '.join(known)}, got {backend!r}")
    if cfg.TEST.FINAL_MODEL not in ("last_step", "best_val"):
        wrong.append(
            f"TEST.FINAL_MODEL must be last_step or best_val, got {cfg.TEST.FINAL_MODEL!r}"
        )
    wrong += _faults_of_wandb(cfg.TRAIN.WANDB)
    if wrong:
        raise ValueError("; ".join(wrong))


def _faults_of_wandb(mode: str) -> list[str]:
    if mode not in LOGS_ON_WANDB:
        return [f"TRAIN.WANDB must be one of {', '.join(LOGS_ON_WANDB)}, got {mode!r}"]
    package = None if mode == "off" else find_spec("wandb")
    if mode == "off" or (package and package.origin):  # without: a mere folder of that name
        return []
    return [
        f"TRAIN.WANDB {mode} needs the package wandb, which is missing: "
        "pip install -r requirements-wandb.txt"
    ]
