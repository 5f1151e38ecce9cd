"""Which values each config key may have, and which keys a run reads.

`RULES` has all keys but those of the trainers' nodes, which have the rule of their default's type
(`rule_of`) and the checks of `Settings.problems`.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from datasets.base import FewShotDataset
from datasets.splits import fold_of
from runs.arguments import FLAG_OF

MOST = 1_000_000  # largest count: of epochs, pictures in a batch, megabytes
MOST_WORKERS = max(64, 4 * (os.cpu_count() or 1))
SUBSETS = ("all", "base", "new", "base/base", "base/new", "new/base", "new/new")
ADAMS = ("adam", "amsgrad", "radam", "adamw")
OPTIMISERS = (*ADAMS, "sgd", "rmsprop")
SCHEDULERS, WARMUPS = ("single_step", "multi_step", "cosine"), ("constant", "linear")
SAMPLERS = (
    *("RandomSampler", "SequentialSampler", "RandomDomainSampler"),
    *("SeqDomainSampler", "RandomClassSampler"),
)
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
TRANSFORMS = (
    *("random_translation", "random_crop", "random_resized_crop", "random_flip"),
    *("imagenet_policy", "cifar10_policy", "svhn_policy", "randaugment", "randaugment_fixmatch"),
    *("randaugment2", "colorjitter", "randomgrayscale", "gaussian_blur", "cutout", "normalize"),
    *("gaussian_noise", "instance_norm", "center_crop"),
)

LIST = (list, tuple)
Values = Mapping[str, Any]  # by the full name of the key, as OPTIM.LR


class Rule(NamedTuple):
    """What a value must be, as a test and as a phrase."""

    fits: Callable[[Any], bool]
    expected: str


def number(least: float = -math.inf, most: float = math.inf) -> Rule:
    """One finite number from `least` to `most`; True and False are none."""
    reach = f" from {least:g} {f'to {most:g}' if most < math.inf else 'on'}"
    return Rule(
        lambda v: type(v) in (int, float) and least <= v <= most and math.isfinite(v),
        "a number" + reach * (least > -math.inf),
    )


def whole(least: int = 0, most: int = MOST) -> Rule:
    """One whole number from `least` to `most`."""
    fits = number(least, most).fits
    return Rule(lambda v: type(v) is int and fits(v), f"a whole number from {least} to {most}")


def numbers(count: int | None, each: Rule) -> Rule:
    """A list of `count` numbers, or of any number of them, that fit one rule each."""
    kind = each.expected.removeprefix("a ").replace("number", "numbers", 1)
    return Rule(
        lambda v: isinstance(v, LIST) and count in (None, len(v)) and all(map(each.fits, v)),
        f"{'a list of' if count is None else count} {kind}",
    )


def choice(names: Iterable[str]) -> Rule:
    """One of some names."""
    known = tuple(names)
    return Rule(lambda v: isinstance(v, str) and v in known, f"one of {', '.join(known)}")


FLAG = Rule(lambda v: type(v) is bool, "True or False")
TEXT = Rule(lambda v: isinstance(v, str) and "\0" not in v, "a text")
PATH_IN_UTF8 = Rule(  # TensorBoard writes to no other
    lambda v: TEXT.fits(v) and v.encode("utf-8", "replace").decode() == v, "a path in UTF-8"
)
ONE_LINE = Rule(
    lambda v: TEXT.fits(v) and v.isprintable() and "/" not in v, "one line without a slash"
)
WORDS = Rule(
    lambda v: TEXT.fits(v) and not re.search(r"[{}]|<\||^[\s_]+$", v),
    'words without { and }, as "a photo of a", or ""',
)
NAMES = Rule(
    lambda v: isinstance(v, LIST) and all(isinstance(name, str) for name in v),
    "a list of names in quotes, as ('global', '1')",
)
SCALES = Rule(
    lambda v: numbers(2, number(1e-6, 1)).fits(v) and v[0] <= v[1],
    "2 numbers from 1e-06 to 1, the smaller one first",
)
ODD = Rule(lambda v: whole(1, 999).fits(v) and v % 2 == 1, "odd, from 1 to 999")
A_FOLD = Rule(
    lambda v: v == "" or (TEXT.fits(v) and fold_of(v) is not None),
    'k/F, the k-th of F folds (2 to 9999), as 1/4, or ""',
)
EPOCHS = Rule(lambda v: numbers(None, whole(-1)).fits(v) and v, "epochs, as (30,) or (30, 60)")
TRANSFORM_LIST = Rule(
    lambda v: isinstance(v, LIST) and all(name in TRANSFORMS for name in v),
    f"a list of {', '.join(TRANSFORMS)}",
)

_RULES: tuple[tuple[Rule, str], ...] = (
    (FLAG, "USE_CUDA VERBOSE DATALOADER.SKIP_UNREADABLE OPTIM.SGD_NESTEROV OPTIM.WARMUP_RECOUNT"),
    (FLAG, "MODEL.BACKBONE.PRETRAINED MODEL.TRUST_WEIGHTS MODEL.ALLOW_MISMATCH"),
    (FLAG, "TEST.PER_CLASS_RESULT TEST.COMPUTE_CMAT TEST.NO_TEST TEST.TEMPERATURE_FITTED"),
    (TEXT, "RESUME CONFIG_NAME DATASET.ROOT DATASET.NAME TEST.EVALUATOR TRAINER.NAME FEATURES.DIR"),
    (TEXT, "MODEL.BACKBONE.NAME MODEL.BACKBONE.WEIGHTS MODEL.INIT_WEIGHTS MODEL.COMPILE"),
    (PATH_IN_UTF8, "OUTPUT_DIR"),
    (ONE_LINE, "DATASET.LABEL"),
    (A_FOLD, "DATASET.FOLD"),
    (choice(["auto", "upright", "stored"]), "INPUT.EXIF"),
    (choice(INTERPOLATIONS), "INPUT.INTERPOLATION"),
    (TRANSFORM_LIST, "INPUT.TRANSFORMS"),
    (choice(SUBSETS), "DATASET.SUBSAMPLE_CLASSES"),
    (choice(SAMPLERS), "DATALOADER.TRAIN_X.SAMPLER"),
    (choice(["SequentialSampler"]), "DATALOADER.TEST.SAMPLER"),
    (choice(OPTIMISERS), "OPTIM.NAME"),
    (choice(SCHEDULERS), "OPTIM.LR_SCHEDULER"),
    (choice(WARMUPS), "OPTIM.WARMUP_TYPE"),
    (choice(["off", "offline", "online"]), "TRAIN.WANDB"),
    (choice(["off", "memory", "disk"]), "FEATURES.KEEP"),
    (choice(["val", "test"]), "TEST.SPLIT"),
    (choice(["last_step", "best_val"]), "TEST.FINAL_MODEL"),
    (choice(["base2novel", "cross"]), "TRAINER.MODAL"),
    (choice(["prograd"]), "LOSS.NAME"),
    (whole(-1, 2**32 - 1), "SEED"),
    (whole(-1), "DATASET.NUM_SHOTS OPTIM.WARMUP_EPOCH TRAIN.CHECKPOINT_FREQ"),
    (whole(), "INPUT.CUTOUT_LEN DATALOADER.CACHE_MB DATALOADER.TRAIN_X.N_DOMAIN"),
    (whole(), "MODEL.TEXT_CHUNK TRAIN.KEEP_CHECKPOINTS"),
    (whole(1), "DATALOADER.TRAIN_X.BATCH_SIZE DATALOADER.TEST.BATCH_SIZE DATALOADER.TRAIN_X.N_INS"),
    (whole(1), "OPTIM.MAX_EPOCH TRAIN.PRINT_FREQ"),
    (whole(0, MOST_WORKERS), "DATALOADER.NUM_WORKERS"),
    (whole(0, 10_000), "INPUT.CROP_PADDING"),
    (whole(0, 1000), "INPUT.CUTOUT_N FEATURES.VIEWS"),
    (whole(0, 100), "INPUT.RANDAUGMENT_N"),
    (whole(0, 30), "INPUT.RANDAUGMENT_M"),
    (ODD, "INPUT.GB_K"),
    (number(), "INPUT.GN_MEAN"),
    (number(0), "INPUT.COLORJITTER_B INPUT.COLORJITTER_C INPUT.COLORJITTER_S INPUT.GN_STD"),
    (number(0), "MODEL.PRUNE.MIX OPTIM.LR OPTIM.WEIGHT_DECAY OPTIM.GAMMA"),
    (number(0), "OPTIM.WARMUP_CONS_LR OPTIM.WARMUP_MIN_LR LOSS.LAMBDA"),
    (number(1e-6, 1e6), "TEST.TEMPERATURE LOSS.T FEATURES.MAX_GB"),
    (number(0, 0.5), "INPUT.COLORJITTER_H"),
    (number(0, 0.999999), "OPTIM.ADAM_BETA1 OPTIM.ADAM_BETA2"),
    (number(0, 1), "INPUT.RGS_P INPUT.GB_P OPTIM.MOMENTUM OPTIM.SGD_DAMPNING OPTIM.RMSPROP_ALPHA"),
    (numbers(2, whole(1, 10_000)), "INPUT.SIZE"),
    (numbers(3, number()), "INPUT.PIXEL_MEAN"),
    (numbers(3, number(1e-6)), "INPUT.PIXEL_STD"),
    (numbers(None, whole()), "MODEL.PRUNE.AT MODEL.PRUNE.KEEP"),
    (SCALES, "INPUT.RRCROP_SCALE"),
    (EPOCHS, "OPTIM.STEPSIZE"),
)
RULES: dict[str, Rule] = {key: rule for rule, keys in _RULES for key in keys.split()}

# Keys of Dassl that no trainer and no data set of this project reads: they keep their default.
UNREAD = (
    *("INPUT.NO_TRANSFORM", "DATASET.SOURCE_DOMAINS", "DATASET.TARGET_DOMAINS"),
    *("DATASET.NUM_LABELED", "DATASET.VAL_PERCENT", "DATASET.ALL_AS_UNLABELED"),
    *("DATALOADER.K_TRANSFORMS", "DATALOADER.RETURN_IMG0", "DATALOADER.TRAIN_U.SAME_AS_X"),
    *("DATALOADER.TRAIN_U.SAMPLER", "DATALOADER.TRAIN_U.BATCH_SIZE"),
    *("DATALOADER.TRAIN_U.N_DOMAIN", "DATALOADER.TRAIN_U.N_INS", "MODEL.HEAD.NAME"),
    *("MODEL.HEAD.HIDDEN_LAYERS", "MODEL.HEAD.ACTIVATION", "MODEL.HEAD.BN", "MODEL.HEAD.DROPOUT"),
    *("OPTIM.STAGED_LR", "OPTIM.NEW_LAYERS", "OPTIM.BASE_LR_MULT", "TRAIN.COUNT_ITER"),
)

RANDAUGMENTS = "randaugment or randaugment_fixmatch or randaugment2"
# A key, its value that is needed ("": any), and the keys that have no effect without it.
READ_WITH = (
    ("INPUT.TRANSFORMS", "random_crop", "INPUT.CROP_PADDING"),
    ("INPUT.TRANSFORMS", "random_resized_crop", "INPUT.RRCROP_SCALE"),
    ("INPUT.TRANSFORMS", "cutout", "INPUT.CUTOUT_N INPUT.CUTOUT_LEN"),
    ("INPUT.TRANSFORMS", "gaussian_noise", "INPUT.GN_MEAN INPUT.GN_STD"),
    ("INPUT.TRANSFORMS", RANDAUGMENTS, "INPUT.RANDAUGMENT_N"),
    ("INPUT.TRANSFORMS", "randaugment", "INPUT.RANDAUGMENT_M"),
    ("INPUT.TRANSFORMS", "colorjitter", "INPUT.COLORJITTER_B INPUT.COLORJITTER_C"),
    ("INPUT.TRANSFORMS", "colorjitter", "INPUT.COLORJITTER_S INPUT.COLORJITTER_H"),
    ("INPUT.TRANSFORMS", "randomgrayscale", "INPUT.RGS_P"),
    ("INPUT.TRANSFORMS", "gaussian_blur", "INPUT.GB_P INPUT.GB_K"),
    ("DATALOADER.TRAIN_X.SAMPLER", "RandomDomainSampler", "DATALOADER.TRAIN_X.N_DOMAIN"),
    ("DATALOADER.TRAIN_X.SAMPLER", "RandomClassSampler", "DATALOADER.TRAIN_X.N_INS"),
    ("OPTIM.NAME", "sgd or rmsprop", "OPTIM.MOMENTUM"),
    ("OPTIM.NAME", "sgd", "OPTIM.SGD_DAMPNING OPTIM.SGD_NESTEROV"),
    ("OPTIM.NAME", "rmsprop", "OPTIM.RMSPROP_ALPHA"),
    ("OPTIM.NAME", " or ".join(ADAMS), "OPTIM.ADAM_BETA1 OPTIM.ADAM_BETA2"),
    ("OPTIM.LR_SCHEDULER", "single_step or multi_step", "OPTIM.STEPSIZE OPTIM.GAMMA"),
    ("OPTIM.WARMUP_TYPE", "constant", "OPTIM.WARMUP_CONS_LR"),
    ("OPTIM.WARMUP_TYPE", "linear", "OPTIM.WARMUP_MIN_LR"),
    ("OPTIM.WARMUP_EPOCH", "", "OPTIM.WARMUP_TYPE OPTIM.WARMUP_RECOUNT"),
    ("OPTIM.WARMUP_EPOCH", "", "OPTIM.WARMUP_CONS_LR OPTIM.WARMUP_MIN_LR"),
    ("TRAINER.NAME", "ProGrad or Spotlighter", "LOSS.LAMBDA LOSS.T"),
    ("FEATURES.KEEP", "memory or disk", "FEATURES.MAX_GB"),
    ("FEATURES.KEEP", "disk", "FEATURES.DIR"),
    ("MODEL.PRUNE.AT", "", "MODEL.PRUNE.MIX"),
    ("MODEL.PRUNE.KEEP", "", "MODEL.PRUNE.MIX"),
)


def flat(cfg: CfgNode, prefix: str = "") -> dict[str, Any]:
    """All values by the full name of their key, as OPTIM.LR."""
    found: dict[str, Any] = {}
    for key, value in cfg.items():
        nested = isinstance(value, CfgNode)
        found |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return found


def rule_of(key: str, default: Any) -> Rule:
    """The rule of a key; in a trainer's node that of its type, and words for its CTX_INIT."""
    if key in RULES:
        return RULES[key]
    if key in UNREAD:
        return Rule(lambda v: v == default, f"{default!r}: nothing here reads it")
    if key.rpartition(".")[2] == "CTX_INIT":
        return WORDS
    if default and numbers(None, number()).fits(default):
        return numbers(len(default), number())
    if default and isinstance(default, LIST):
        return NAMES
    by_type = {bool: FLAG, int: whole(), float: number(), str: TEXT}
    return by_type.get(type(default), Rule(lambda v: v is not None, "a value, not None"))


def _has(value: Any, needed: str) -> bool:
    """Whether a value is, or holds, a name of "a or b"; with "", whether it is set."""
    if not needed:
        return value != -1 and bool(value)
    held = value if isinstance(value, LIST) else [value]
    return any(name in held for name in needed.split(" or "))


def without_effect(values: Values, defaults: Values, nodes: Mapping[str, Any]) -> list[str]:
    """A phrase for each changed key that this run does not read; `nodes`: `Settings` by node."""
    changed = [key for key, value in values.items() if key in defaults and value != defaults[key]]
    found = {
        key: f"{key} (it needs {f'{other} {needed}'.rstrip()})"
        for other, needed, keys in READ_WITH
        for key in keys.split()
        if key in changed and not _has(values[other], needed)
    }
    found |= _not_of_the_trainer(values, changed)
    for key in (f"TRAINER.{node}.{key}" for node, read in nodes.items() for key in read.UNUSED):
        if key in changed:
            found[key] = f"{key} (the published code does not use it either)"
    for node, settings in nodes.items():
        own_keys = {field.name.upper() for field in fields(settings)}
        for key in changed:
            if key.startswith(f"TRAINER.{node}.") and key.split(".")[2] not in own_keys:
                found[key] = f"{key} (another trainer reads it)"
    read = {"NAME", *nodes} | ({"MODAL"} if "PROMPTKD" in nodes else set())
    own = {key.split(".")[1] for key in changed if key.startswith("TRAINER.")}
    others = [f"TRAINER.{node} (another trainer reads it)" for node in sorted(own - read)]
    return [*found.values(), *others]


def _not_of_the_trainer(values: Values, changed: list[str]) -> dict[str, str]:
    """A phrase for each changed key that trainers of this kind do not read."""
    name, found = values.get("TRAINER.NAME", ""), {}
    trainer = registered(TRAINER_REGISTRY, name)
    computed = getattr(trainer, "computed", False)
    if computed or not getattr(trainer, "learns", True):
        found["FEATURES.VIEWS"] = "FEATURES.VIEWS (nothing is trained in steps)"
    if computed:
        steps = [key for key in values if key.startswith("OPTIM.")]
        found |= {key: f"{key} ({name} is computed, without steps)" for key in steps}
    if not takes_features(values):
        found["FEATURES.KEEP"] = "FEATURES.KEEP (it needs a frozen image tower)"
    return {key: phrase for key, phrase in found.items() if key in changed}


def require_valid(cfg: CfgNode, defaults: Values) -> None:
    """Check a whole config; a ValueError names every key that has a value it cannot have."""
    trainer = registered(TRAINER_REGISTRY, cfg.TRAINER.NAME)
    data_set = registered(DATASET_REGISTRY, cfg.DATASET.NAME)
    # A trainer or data set that is not built on this project's may read all keys of Dassl.
    foreign = trainer is not None and not hasattr(trainer, "settings_class")
    foreign |= data_set is not None and not issubclass(data_set, FewShotDataset)
    values, unchecked = flat(cfg), UNREAD if foreign else ()
    wrong = [
        f"{key}{FLAG_OF.get(key, '')} must be {rule.expected}, got {values[key]!r}"
        for key, default in defaults.items()
        if key not in unchecked and not (rule := rule_of(key, default)).fits(values[key])
    ]
    if data_set is not None and not issubclass(data_set, FewShotDataset) and cfg.DATASET.FOLD:
        wrong.append(f"DATASET.FOLD must be \"\": {cfg.DATASET.NAME} deals no pictures into folds")
    wrong = wrong or [*_contradictions(values), *_missing(values)]
    if wrong:
        raise ValueError("; ".join(wrong))


def registered(registry: Any, name: str) -> Any:
    """The class of a trainer or data set by its name; None if there is none."""
    return registry.get(name) if name in registry.registered_names() else None


def _contradictions(values: Values) -> list[str]:
    """A sentence for each value that does not fit the other values."""
    steps, schedule = values["OPTIM.STEPSIZE"], values["OPTIM.LR_SCHEDULER"]
    is_nesterov = values["OPTIM.NAME"] == "sgd" and values["OPTIM.SGD_NESTEROV"]
    is_plain = values["OPTIM.MOMENTUM"] > 0 and values["OPTIM.SGD_DAMPNING"] == 0
    found, beside = [], f"with OPTIM.LR_SCHEDULER {schedule}, got {steps}"
    if schedule == "multi_step" and min(steps) < 1:
        found.append(f"OPTIM.STEPSIZE must name epochs from 1 on {beside}")
    if schedule == "single_step" and len(steps) > 1:
        what = "one number of epochs"
        found.append(f"OPTIM.STEPSIZE must be {what} {beside}; multi_step takes several")
    if is_nesterov and not is_plain:
        found.append("OPTIM.SGD_NESTEROV needs OPTIM.MOMENTUM above 0 and OPTIM.SGD_DAMPNING 0")
    if values["DATASET.FOLD"] and values["TEST.SPLIT"] == "val":
        found.append("DATASET.FOLD tests held-out training pictures; it needs TEST.SPLIT test")
    if values["FEATURES.VIEWS"] and not takes_features(values):
        found.append(
            "FEATURES.VIEWS keeps features of a frozen image tower, which "
            f"{values['TRAINER.NAME']} does not have; it must be 0"
        )
    return found


def takes_features(values: Values) -> bool:
    """Whether the trainer of a config, or the base of its head, `takes_features`."""
    trainer = registered(TRAINER_REGISTRY, values["TRAINER.NAME"])
    base = values.get(f"TRAINER.{getattr(trainer, 'node', '')}.BASE", "")
    tuner = registered(TRAINER_REGISTRY, base) if base else trainer
    return getattr(tuner, "takes_features", False)


def _missing(values: Values) -> list[str]:
    """A sentence for each package or file that is missing, by the keys that name it."""
    found, backend, mode = [], values["MODEL.COMPILE"], values["TRAIN.WANDB"]
    if backend:
        import torch._dynamo

        rule = choice(torch._dynamo.list_backends(exclude_tags=None))
        if not rule.fits(backend):
            found.append(f"MODEL.COMPILE must be {rule.expected}, got {backend!r}")
    if mode != "off":
        package = find_spec("wandb")
        if package is None or not package.origin:  # without: a mere folder of that name
            advice = "pip install -r requirements-wandb.txt"
            found.append(f"TRAIN.WANDB {mode} needs the package wandb, which is missing: {advice}")
    if (start := values["MODEL.INIT_WEIGHTS"]) and not Path(start).exists():
        found.append(f"MODEL.INIT_WEIGHTS {start} is neither a checkpoint nor the folder of a run")
    return found
