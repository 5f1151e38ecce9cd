"""The identity that a checkpoint holds, and whether it fits a run."""

import hashlib
import json
import logging
import re
from collections.abc import Container
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from dassl.engine import TRAINER_REGISTRY
from torch import nn
from yacs.config import CfgNode

from models.clip.weights import some
from runs import parallel
from runs.config import default_config, read_run_config
from runs.config_rules import flat
from runs.record import git_revision, versions
from runs.state import RunState

logger = logging.getLogger(__name__)

# Keys that change what is written, printed or how fast, but not what is learned.
WITHOUT_EFFECT = (
    "OUTPUT_DIR", "RESUME", "VERBOSE", "CONFIG_NAME", "USE_CUDA", "DATASET.ROOT", "DATASET.LABEL",
    "TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ", "TRAIN.KEEP_CHECKPOINTS", "TRAIN.WANDB",
    "TEST.EVALUATOR", "TEST.PER_CLASS_RESULT", "TEST.COMPUTE_CMAT", "TEST.NO_TEST", "TEST.SPLIT",
    "TEST.TEMPERATURE", "TEST.TEMPERATURE_FITTED",
    "DATALOADER.TEST.BATCH_SIZE", "DATALOADER.CACHE_MB", "MODEL.COMPILE",
    "MODEL.TRUST_WEIGHTS", "MODEL.ALLOW_MISMATCH", "MODEL.BACKBONE.WEIGHTS",
)
# Keys beside the trainer's own settings that a prediction depends on.
AT_TEST = (
    "INPUT.SIZE", "INPUT.INTERPOLATION", "INPUT.EXIF", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD",
    "MODEL.PRUNE.AT", "MODEL.PRUNE.KEEP", "MODEL.PRUNE.MIX", "DATASET.FOLD",
)
# Keys that change the probabilities alone, of any checkpoint.
OF_PROBABILITIES = ("TEST.TEMPERATURE",)
# Keys that are columns of their own in a table, or that its base and new columns differ in.
NAMED = ("TRAINER.NAME", "SEED", "DATASET.NAME", "DATASET.NUM_SHOTS", "DATASET.SUBSAMPLE_CLASSES")
TEACHER = "TRAINER.PROMPTKD.TEACHER_DIR"
WHY = {
    "trainer": "each trainer learns parameters of its own",
    "backbone": "what was learned fits the towers it was learned on",
    "weights": "what was learned fits the weights it was learned on",
    "context_length": "the learned context has another shape",
    "class_names": "it belongs to these classes",
    "data": "a digest of paths, labels and splits: the data have changed",
    "pictures": "a digest of the training pictures: they were replaced",
    "teacher": "its projector fits one teacher",
    "base": "its head was trained on that base",
}
WHY_TO_TRAIN = "the run would not go on as it began"
WHY_TO_TEST = "it was not trained to be so used"
TOWERS = ("trainer", "backbone", "weights", "context_length")
CAN_BE_MEANT = ("weights", "data", "pictures")  # --allow-mismatch lets them differ, and config keys


def identity(cfg: CfgNode, state: RunState, *, to_train: bool = True) -> dict[str, Any]:
    """What a checkpoint says of its run, as plain data; training pictures are read `to_train`."""
    config = training_keys(cfg) | {"TEST.FINAL_MODEL": state.final_model}
    return {
        "trainer": cfg.TRAINER.NAME, "backbone": cfg.MODEL.BACKBONE.NAME, "weights": state.weights,
        "class_names": state.class_names, "context_length": context_length(state.learned),
        "dataset": state.label, "own_name": getattr(state.dataset, "own_name", ""),
        "all_classes": text_digest(list(getattr(state.dataset, "all_class_names", ()))),
        "data": getattr(state.dataset, "digest", ""),
        "pictures": state.pictures if to_train else "", "settings": settings(cfg, state),
        "config": config, "config_digest": text_digest(config),
        "version": versions() | {"git": git_revision()}, **state.compatibility,
    }


def text_digest(value: Any) -> str:
    """12 hexadecimal digits of plain data."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def digest(module: nn.Module) -> str:
    """12 hexadecimal digits of weights; the statistics of a ResNet are among them.

    Of a module without parameters, which was computed, they are of all its numbers.
    """
    total, weights = hashlib.sha256(), dict(module.named_parameters())
    counted = {n: b for n, b in module.named_buffers() if not weights or ".running_" in n}
    for name, value in (weights | counted).items():
        total.update(name.encode())
        total.update(value.detach().float().cpu().contiguous().numpy().data)
    return total.hexdigest()[:12]


def context_length(learned: nn.Module | None) -> int | None:
    """The number of learned context vectors; None where no words are learned."""
    parameters = {} if learned is None else dict(learned.named_parameters())
    return next((p.shape[-2] for n, p in parameters.items() if n.split(".")[-1] == "ctx"), None)


def training_keys(cfg: CfgNode) -> dict[str, Any]:
    """The keys that decide what a run learns, by full name; plain data."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in flat(cfg).items()
        if key not in WITHOUT_EFFECT
    }


def result_keys(cfg: CfgNode) -> dict[str, Any]:
    """The keys that decide a result, by full name; plain data."""
    values = flat(cfg)
    return training_keys(cfg) | {key: values[key] for key in OF_PROBABILITIES}


def prediction_keys(state: RunState) -> set[str]:
    """The keys that a prediction of the trained model depends on."""
    read = state.settings.items()
    own = {f"TRAINER.{node}.{key}" for node, settings in read for key in settings.of_the_model()}
    return own | set(AT_TEST)


def settings(cfg: CfgNode, state: RunState) -> dict[str, Any]:
    """The settings that decide a result and differ from the defaults, by full name; plain data.

    Weights that were loaded keep the settings they were trained with, but for those that a
    prediction depends on. These alone count if nothing is learned.
    """
    found = changed_settings(cfg, set(state.settings))
    if state.final_model == default_settings()["TEST.FINAL_MODEL"]:
        found.pop("TEST.FINAL_MODEL", None)  # asked for, but there is nothing to choose by
    if parallel.processes() > 1 and state.trained:
        found["processes"] = parallel.processes()
    now = prediction_keys(state) | set(OF_PROBABILITIES)
    if state.learned is None:
        now |= {"MODEL.BACKBONE.NAME"}
    elif state.trained_settings is None:
        return found
    before = {k: v for k, v in (state.trained_settings or {}).items() if k not in now}
    return before | {key: value for key, value in found.items() if key in now}


@cache
def default_settings() -> dict[str, Any]:
    """The keys that decide a result, with their defaults."""
    return result_keys(default_config())


def settings_of_run(folder: Path) -> dict[str, Any]:
    """What a run was trained with, by its config.yaml; LookupError if its trainer is unknown."""
    cfg = read_run_config(folder)
    found = changed_settings(cfg, nodes_of(cfg))
    found = {key: value for key, value in found.items() if key not in OF_PROBABILITIES}
    if cfg.DATASET.NAME == "Folder" and not cfg.DATASET.LABEL:  # as before there were labels
        found["DATASET.ROOT"] = cfg.DATASET.ROOT
    return found


def nodes_of(cfg: CfgNode) -> set[str]:
    """The nodes of TRAINER that the trainer of a config reads: its own, and that of its base."""
    node = TRAINER_REGISTRY.get(cfg.TRAINER.NAME).node
    base = cfg.TRAINER[node].get("BASE")
    return {node, TRAINER_REGISTRY.get(base).node} if base else {node}


def changed_settings(cfg: CfgNode, nodes: set[str]) -> dict[str, Any]:
    """Keys of a result, without a column, that differ from the defaults; of TRAINER in `nodes`."""
    usual, found = default_settings(), {}
    for key, value in result_keys(cfg).items():
        if usual.get(key) != value and key not in NAMED and is_read(key, nodes):
            # paths without the seed: seeds are repetitions of one experiment
            is_text = isinstance(value, str)
            found[key] = re.sub(r"seed_?\d+", "seed*", value) if is_text else value
    if TEACHER in found:
        with suppress(OSError, ValueError, LookupError):  # not a run of ours: the folder stays
            folder = teacher_folder(cfg)
            taught, digits = read_run_config(folder), text_digest(settings_of_run(folder))
            found[TEACHER] = f"{taught.TRAINER.NAME}:{taught.CONFIG_NAME} {digits[:6]}"
    return found


def is_read(key: str, nodes: Container[str]) -> bool:
    """Whether a trainer that reads these nodes of TRAINER reads a key."""
    return key.count(".") < 2 or not key.startswith("TRAINER.") or key.split(".")[1] in nodes


def teacher_folder(cfg: CfgNode) -> Path:
    """TRAINER.PROMPTKD.TEACHER_DIR for the data set and the seed of a run."""
    # replaced as they stand: a format string could ask for gigabytes
    named = cfg.TRAINER.PROMPTKD.TEACHER_DIR.replace("{dataset}", cfg.DATASET.NAME)
    return Path(named.replace("{seed}", str(cfg.SEED)))


def check(
    cfg: CfgNode, state: RunState, saved: dict[str, Any], path: Path, *, to_train: bool
) -> None:
    """Refuse a checkpoint that differs in what decides training, or a prediction if not `to_train`.

    ValueError names all that differs, and why it matters. Published ones have no identity and pass.
    """
    there, here = saved.get("identity") or {}, identity(cfg, state, to_train=to_train)
    if any(name in saved["state_dict"] for name in state.outdated):
        revision = there.get("version", {}).get("git", "unknown")
        raise ValueError(
            f"the checkpoint {path} was written by an earlier version of {cfg.TRAINER.NAME} "
            f"(revision {revision}), which this one cannot read; evaluate it with that revision "
            "(git checkout), or train anew"
        )
    keys = (*TOWERS, *state.compatibility, *_data_keys(there, here, to_train))
    wrong = _differing(keys, there, here)
    compared = prediction_keys(state)
    if to_train:
        compared = {key for key in here["config"] if is_read(key, state.settings)}
    settings = _differing(compared, there.get("config", {}), here["config"])
    if to_train and there.get("version", here["version"]) != here["version"]:
        was = {k: v for k, v in there["version"].items() if here["version"].get(k) != v}
        logger.warning("%s was written with %s: last digits may differ now", path, was)
    if not wrong and not settings:
        return
    differ = [f"{key}{values} ({WHY[key]})" for key, values in wrong.items()]
    differ += [f"{key}{values}" for key, values in settings.items()]
    if settings:
        differ[-1] += f" ({WHY_TO_TRAIN if to_train else WHY_TO_TEST})"
    sentence = f"the checkpoint {path} was written with {'; '.join(differ)}"
    can_be_meant = wrong.keys() <= set(CAN_BE_MEANT)
    if can_be_meant and cfg.MODEL.ALLOW_MISMATCH:
        logger.warning("%s; it is loaded all the same (--allow-mismatch)", sentence)
        return
    raise ValueError(
        f"{sentence}; choose another --model-dir (or --output-dir), or the settings it was trained "
        "with" + ", or pass --allow-mismatch if that is meant" * can_be_meant
    )


def _data_keys(there: dict[str, Any], here: dict[str, Any], to_train: bool) -> list[str]:
    """What must be equal about the data.

    A run goes on with all that it began with. It is evaluated on any data, but those of one name
    must not have changed, else pictures that it was trained on may be tested.
    """
    if to_train:
        return ["class_names", "data", "pictures"]
    of_one_name = there.get("dataset") == here["dataset"] or all(
        there.get(key) == here[key] for key in ("own_name", "all_classes")
    )
    return ["data"] if of_one_name and there.get("data") and here["data"] else []


def _differing(keys: Container[str], there: dict[str, Any], here: dict[str, Any]) -> dict[str, str]:
    """Both values, as part of a sentence, of each key that differs."""
    differ = [k for k in here if k in keys and k in there and there[k] != here[k]]
    return {k: f" {short(there[k])}, and this run has {short(here[k])}" for k in differ}


def short(value: Any) -> str:
    """A value for a sentence; a long list by its beginning, an empty text as ""."""
    return some(list(map(str, value))) if isinstance(value, list) else str(value) or '""'
