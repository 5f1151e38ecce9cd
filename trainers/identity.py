"""What a checkpoint says of itself, and whether that fits a run."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from yacs.config import CfgNode

from models.weights import some
from trainers.config_rules import flat
from trainers.run_record import git_revision, versions

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer

logger = logging.getLogger(__name__)

# Keys that change what is written, printed or how fast, but not what is learned.
WITHOUT_EFFECT = (
    *("OUTPUT_DIR", "RESUME", "VERBOSE", "CONFIG_NAME", "USE_CUDA", "DATASET.ROOT"),
    *("TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ", "TRAIN.KEEP_CHECKPOINTS", "TRAIN.WANDB"),
    *("TEST.EVALUATOR", "TEST.PER_CLASS_RESULT", "TEST.COMPUTE_CMAT", "TEST.NO_TEST", "TEST.SPLIT"),
    *("DATALOADER.TEST.BATCH_SIZE", "DATALOADER.CACHE_MB", "MODEL.COMPILE"),
    *("MODEL.TRUST_WEIGHTS", "MODEL.ALLOW_MISMATCH", "MODEL.BACKBONE.WEIGHTS"),
)
# Keys beside the trainer's own settings that a prediction depends on.
AT_TEST = (
    *("INPUT.SIZE", "INPUT.INTERPOLATION", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD"),
    *("MODEL.PRUNE.AT", "MODEL.PRUNE.KEEP", "MODEL.PRUNE.MIX"),
)
WHY = {
    "trainer": "each trainer learns parameters of its own",
    "backbone": "what was learned fits the towers it was learned on",
    "weights": "what was learned fits the weights it was learned on",
    "context_length": "the learned context has another shape",
    "class_names": "it belongs to these classes",
    "teacher": "its projector fits one teacher",
    "base": "its head was trained on that base",
}
TOWERS = ("trainer", "backbone", "weights", "context_length")
CAN_BE_MEANT = ("weights",)  # and whatever differs in the config alone


def identity(trainer: CLIPTrainer) -> dict[str, Any]:
    """What a checkpoint of this run says of itself; plain data."""
    config = deciding(trainer.cfg)
    return {
        "trainer": trainer.cfg.TRAINER.NAME,
        "backbone": trainer.cfg.MODEL.BACKBONE.NAME,
        "weights": trainer.weights,
        "class_names": trainer.class_names,
        "context_length": context_length(trainer.model.learned),
        "config": config,
        "config_digest": hashlib.sha256(json.dumps(config).encode()).hexdigest()[:12],
        "version": versions() | {"git": git_revision()},
        **trainer.own_identity(),
    }


def digest(module: nn.Module) -> str:
    """12 hexadecimal digits that tell weights apart; the statistics of a ResNet are among them."""
    total = hashlib.sha256()
    statistics = [(n, b) for n, b in module.named_buffers() if ".running_" in n]
    for name, value in [*module.named_parameters(), *statistics]:
        total.update(name.encode())
        total.update(value.detach().float().cpu().contiguous().numpy().data)
    return total.hexdigest()[:12]


def context_length(learned: nn.Module | None) -> int | None:
    """The number of learned context vectors; None where no words are learned."""
    parameters = {} if learned is None else dict(learned.named_parameters())
    return next((p.shape[-2] for n, p in parameters.items() if n.split(".")[-1] == "ctx"), None)


def deciding(cfg: CfgNode) -> dict[str, Any]:
    """The keys that decide what a run learns, by full name; plain data."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in flat(cfg).items()
        if key not in WITHOUT_EFFECT
    }


def predicting(trainer: CLIPTrainer) -> set[str]:
    """The keys among them that a prediction of the trained model depends on."""
    own = {
        f"TRAINER.{node}.{key}"
        for node, settings in trainer.settings_read().items()
        for key in settings.of_the_model()
    }
    return own | set(AT_TEST)


def check(trainer: CLIPTrainer, saved: dict[str, Any], path: Path, *, to_train: bool) -> None:
    """Compare a checkpoint with a run; published ones say nothing of themselves and pass.

    Args:
        trainer: of the run.
        saved: content of the checkpoint.
        path: of the checkpoint, for the message.
        to_train: to go on training, where all that decides it must agree, not to evaluate.

    Raises:
        ValueError: names all that differs, and why it matters.
    """
    there, here = saved.get("identity") or {}, identity(trainer)
    keys = dict.fromkeys((*TOWERS, *trainer.own_identity(), *["class_names"] * to_train))
    wrong = [key for key in keys if key in there and there[key] != here[key]]
    other = _differing_settings(trainer, there.get("config", {}), here["config"], to_train)
    if to_train and there.get("version", here["version"]) != here["version"]:
        was = {k: v for k, v in there["version"].items() if here["version"].get(k) != v}
        logger.warning("%s was written with %s: last digits may differ now", path, was)
    if not wrong and not other:
        return
    sentence = f"the checkpoint {path} was written with " + "; ".join(
        [_difference(key, there[key], here[key], WHY[key]) for key in wrong] + other
    )
    can_be_meant = all(key in CAN_BE_MEANT for key in wrong)
    if can_be_meant and trainer.cfg.MODEL.ALLOW_MISMATCH:
        logger.warning("%s; it is loaded all the same (--allow-mismatch)", sentence)
        return
    raise ValueError(
        f"{sentence}; choose another --model-dir (or --output-dir), or the settings it was trained "
        "with" + ", or pass --allow-mismatch if that is meant" * can_be_meant
    )


def _differing_settings(
    trainer: CLIPTrainer, there: dict[str, Any], here: dict[str, Any], to_train: bool
) -> list[str]:
    keys = set(here) if to_train else predicting(trainer)
    differ = [k for k, v in here.items() if k in keys and k in there and there[k] != v]
    why = "the run would not go on as it began" if to_train else "it was not trained to be so used"
    return [_difference(k, there[k], here[k], why if k == differ[-1] else "") for k in differ]


def _difference(key: str, there: Any, here: Any, why: str) -> str:
    reason = f" ({why})" if why else ""
    return f"{key} {short(there)}, and this run has {short(here)}{reason}"


def short(value: Any) -> str:
    """A value for a sentence; a long list by its beginning."""
    return some(list(map(str, value))) if isinstance(value, list) else str(value)
