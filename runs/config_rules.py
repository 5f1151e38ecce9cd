"""Which values each config key may have, and which keys have an effect.

`RULES` names every key but those of the trainers' own nodes, which follow from the type of their
default (`rule_of`) and the `faults` of their `Settings`. `UNREAD` names the keys of Dassl that
nothing here reads. `READ_WITH` names the keys that are read beside another key's value alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dassl.data.transforms import INTERPOLATION_MODES
from yacs.config import CfgNode

from runs.rules import (
    Rule,
    choice,
    choices,
    flag,
    is_list,
    is_number,
    number,
    numbers,
    odd,
    one_line,
    only,
    path_in_utf8,
    rising,
    share,
    text,
    whole,
    words,
)

MOST_WORKERS = max(64, 4 * (os.cpu_count() or 1))
SUBSETS = ("all", "base", "new", "base/base", "base/new", "new/base", "new/new")
ADAMS = ("adam", "amsgrad", "radam", "adamw")
OPTIMISERS = (*ADAMS, "sgd", "rmsprop")
SCHEDULERS, WARMUPS = ("single_step", "multi_step", "cosine"), ("constant", "linear")
SAMPLERS = (
    *("RandomSampler", "SequentialSampler", "RandomDomainSampler"),
    *("SeqDomainSampler", "RandomClassSampler"),
)
TRANSFORMS = (
    *("random_translation", "random_crop", "random_resized_crop", "random_flip"),
    *("imagenet_policy", "cifar10_policy", "svhn_policy"),
    *("randaugment", "randaugment_fixmatch", "randaugment2"),
    *("colorjitter", "randomgrayscale", "gaussian_blur"),
    *("cutout", "normalize", "gaussian_noise", "instance_norm", "center_crop"),
)
LOGS_ON_WANDB = ("off", "offline", "online")


# Keys of Dassl that no trainer and no data set of this project reads. A trainer or data set that is
# not built on ours may read them, and is not asked.
UNREAD: dict[str, Rule] = {
    "INPUT.NO_TRANSFORM": only(False),
    "DATASET.SOURCE_DOMAINS": only(()),
    "DATASET.TARGET_DOMAINS": only(()),
    "DATASET.NUM_LABELED": only(-1),
    "DATASET.VAL_PERCENT": only(0.1),
    "DATASET.ALL_AS_UNLABELED": only(False),
    "DATALOADER.K_TRANSFORMS": only(1),
    "DATALOADER.RETURN_IMG0": only(False),
    "DATALOADER.TRAIN_U.SAME_AS_X": only(True),
    "DATALOADER.TRAIN_U.SAMPLER": only("RandomSampler"),
    "DATALOADER.TRAIN_U.BATCH_SIZE": only(32),
    "DATALOADER.TRAIN_U.N_DOMAIN": only(0),
    "DATALOADER.TRAIN_U.N_INS": only(16),
    "MODEL.HEAD.NAME": only(""),
    "MODEL.HEAD.HIDDEN_LAYERS": only(()),
    "MODEL.HEAD.ACTIVATION": only("relu"),
    "MODEL.HEAD.BN": only(True),
    "MODEL.HEAD.DROPOUT": only(0.0),
    "OPTIM.STAGED_LR": only(False),
    "OPTIM.NEW_LAYERS": only(()),
    "OPTIM.BASE_LR_MULT": only(0.1),
    "TRAIN.COUNT_ITER": only("train_x"),
}
FLAGS = {
    "DATASET.SOURCE_DOMAINS": " (--source-domains)",
    "DATASET.TARGET_DOMAINS": " (--target-domains)",
    "MODEL.HEAD.NAME": " (--head)",
}

RULES: dict[str, Rule] = {
    "OUTPUT_DIR": path_in_utf8(),
    "RESUME": text(),
    "CONFIG_NAME": text(),
    "SEED": whole(-1, 2**32 - 1),
    "USE_CUDA": flag(),
    "VERBOSE": flag(),
    "INPUT.SIZE": numbers(2, whole(1, 10_000)),
    "INPUT.EXIF": choice(["auto", "upright", "stored"]),
    "INPUT.INTERPOLATION": choice(INTERPOLATION_MODES),
    "INPUT.TRANSFORMS": choices(TRANSFORMS),
    "INPUT.PIXEL_MEAN": numbers(3, number()),
    "INPUT.PIXEL_STD": numbers(3, number(1e-6)),
    "INPUT.CROP_PADDING": whole(0, 10_000),
    "INPUT.RRCROP_SCALE": rising(number(1e-6, 1)),
    "INPUT.CUTOUT_N": whole(0, 1000),
    "INPUT.CUTOUT_LEN": whole(),
    "INPUT.GN_MEAN": number(),
    "INPUT.GN_STD": number(0),
    "INPUT.RANDAUGMENT_N": whole(0, 100),
    "INPUT.RANDAUGMENT_M": whole(0, 30),
    "INPUT.COLORJITTER_B": number(0),
    "INPUT.COLORJITTER_C": number(0),
    "INPUT.COLORJITTER_S": number(0),
    "INPUT.COLORJITTER_H": number(0, 0.5),
    "INPUT.RGS_P": share(),
    "INPUT.GB_P": share(),
    "INPUT.GB_K": odd(),
    "DATASET.ROOT": text(),
    "DATASET.NAME": text(),
    "DATASET.LABEL": one_line(),
    "DATASET.NUM_SHOTS": whole(-1),
    "DATASET.SUBSAMPLE_CLASSES": choice(SUBSETS),
    "DATALOADER.NUM_WORKERS": whole(0, MOST_WORKERS),
    "DATALOADER.TRAIN_X.SAMPLER": choice(SAMPLERS),
    "DATALOADER.TRAIN_X.BATCH_SIZE": whole(1),
    "DATALOADER.TRAIN_X.N_DOMAIN": whole(),
    "DATALOADER.TRAIN_X.N_INS": whole(1),
    "DATALOADER.TEST.SAMPLER": choice(["SequentialSampler"]),
    "DATALOADER.TEST.BATCH_SIZE": whole(1),
    "DATALOADER.CACHE_MB": whole(),
    "DATALOADER.SKIP_UNREADABLE": flag(),
    "MODEL.INIT_WEIGHTS": text(),
    "MODEL.BACKBONE.NAME": text(),
    "MODEL.BACKBONE.PRETRAINED": flag(),
    "MODEL.BACKBONE.WEIGHTS": text(),
    "MODEL.TRUST_WEIGHTS": flag(),
    "MODEL.ALLOW_MISMATCH": flag(),
    "MODEL.COMPILE": text(),
    "MODEL.TEXT_CHUNK": whole(),
    "MODEL.PRUNE.AT": numbers(None, whole()),
    "MODEL.PRUNE.KEEP": numbers(None, whole()),
    "MODEL.PRUNE.MIX": number(0),
    "OPTIM.NAME": choice(OPTIMISERS),
    "OPTIM.LR": number(0),
    "OPTIM.WEIGHT_DECAY": number(0),
    "OPTIM.MOMENTUM": share(),
    "OPTIM.SGD_DAMPNING": share(),
    "OPTIM.SGD_NESTEROV": flag(),
    "OPTIM.RMSPROP_ALPHA": share(),
    "OPTIM.ADAM_BETA1": number(0, below=1),
    "OPTIM.ADAM_BETA2": number(0, below=1),
    "OPTIM.LR_SCHEDULER": choice(SCHEDULERS),
    "OPTIM.STEPSIZE": Rule(
        lambda v: numbers(None, whole(-1)).fits(v) and len(v) > 0, "epochs, as (30,) or (30, 60)"
    ),
    "OPTIM.GAMMA": number(0),
    "OPTIM.MAX_EPOCH": whole(1),
    "OPTIM.WARMUP_EPOCH": whole(-1),
    "OPTIM.WARMUP_TYPE": choice(WARMUPS),
    "OPTIM.WARMUP_CONS_LR": number(0),
    "OPTIM.WARMUP_MIN_LR": number(0),
    "OPTIM.WARMUP_RECOUNT": flag(),
    "TRAIN.CHECKPOINT_FREQ": whole(-1),
    "TRAIN.PRINT_FREQ": whole(1),
    "TRAIN.KEEP_CHECKPOINTS": whole(),
    "TRAIN.WANDB": choice(LOGS_ON_WANDB),
    "TEST.EVALUATOR": text(),
    "TEST.PER_CLASS_RESULT": flag(),
    "TEST.COMPUTE_CMAT": flag(),
    "TEST.NO_TEST": flag(),
    "TEST.SPLIT": choice(["val", "test"]),
    "TEST.FINAL_MODEL": choice(["last_step", "best_val"]),
    "TRAINER.NAME": text(),
    "TRAINER.MODAL": choice(["base2novel", "cross"]),
}


def rule_of(key: str, default: Any) -> Rule:
    """The rule of a key; in a trainer's node that of its type, and words for its CTX_INIT."""
    if key in RULES:
        return RULES[key]
    if key.rpartition(".")[2] == "CTX_INIT":
        return words()
    by_type: dict[type, Rule] = {bool: flag(), int: whole(), float: number(), str: text()}
    if is_list(default) and default and all(map(is_number, default)):
        return numbers(len(default), number())
    return by_type.get(type(default), Rule(lambda v: v is not None, "a value, not None"))


Values = Mapping[str, Any]


def _is(key: str, *names: str) -> Callable[[Values], bool]:
    return lambda values: values[key] in names


def _transforms(*names: str) -> Callable[[Values], bool]:
    return lambda values: any(name in values["INPUT.TRANSFORMS"] for name in names)


# Keys, what they are read with, and whether that is so.
READ_WITH: tuple[tuple[tuple[str, ...], str, Callable[[Values], bool]], ...] = (
    (("INPUT.CROP_PADDING",), "random_crop", _transforms("random_crop")),
    (("INPUT.RRCROP_SCALE",), "random_resized_crop", _transforms("random_resized_crop")),
    (("INPUT.CUTOUT_N", "INPUT.CUTOUT_LEN"), "cutout", _transforms("cutout")),
    (("INPUT.GN_MEAN", "INPUT.GN_STD"), "gaussian_noise", _transforms("gaussian_noise")),
    (
        ("INPUT.RANDAUGMENT_N",),
        "randaugment*",
        _transforms("randaugment", "randaugment_fixmatch", "randaugment2"),
    ),
    (("INPUT.RANDAUGMENT_M",), "randaugment", _transforms("randaugment")),
    (
        tuple(f"INPUT.COLORJITTER_{part}" for part in "BCSH"),
        "colorjitter",
        _transforms("colorjitter"),
    ),
    (("INPUT.RGS_P",), "randomgrayscale", _transforms("randomgrayscale")),
    (("INPUT.GB_P", "INPUT.GB_K"), "gaussian_blur", _transforms("gaussian_blur")),
    (
        ("DATALOADER.TRAIN_X.N_DOMAIN",),
        "RandomDomainSampler",
        _is("DATALOADER.TRAIN_X.SAMPLER", "RandomDomainSampler"),
    ),
    (
        ("DATALOADER.TRAIN_X.N_INS",),
        "RandomClassSampler",
        _is("DATALOADER.TRAIN_X.SAMPLER", "RandomClassSampler"),
    ),
    (("OPTIM.MOMENTUM",), "sgd and rmsprop", _is("OPTIM.NAME", "sgd", "rmsprop")),
    (("OPTIM.SGD_DAMPNING", "OPTIM.SGD_NESTEROV"), "sgd", _is("OPTIM.NAME", "sgd")),
    (("OPTIM.RMSPROP_ALPHA",), "rmsprop", _is("OPTIM.NAME", "rmsprop")),
    (("OPTIM.ADAM_BETA1", "OPTIM.ADAM_BETA2"), ", ".join(ADAMS), _is("OPTIM.NAME", *ADAMS)),
    (
        ("OPTIM.STEPSIZE", "OPTIM.GAMMA"),
        "single_step and multi_step",
        _is("OPTIM.LR_SCHEDULER", "single_step", "multi_step"),
    ),
    (
        ("OPTIM.WARMUP_TYPE", "OPTIM.WARMUP_RECOUNT"),
        "OPTIM.WARMUP_EPOCH above 0",
        lambda values: values["OPTIM.WARMUP_EPOCH"] > 0,
    ),
    (
        ("OPTIM.WARMUP_CONS_LR",),
        "a constant warm-up",
        lambda values: (
            values["OPTIM.WARMUP_EPOCH"] > 0 and values["OPTIM.WARMUP_TYPE"] == "constant"
        ),
    ),
    (
        ("OPTIM.WARMUP_MIN_LR",),
        "a linear warm-up",
        lambda values: values["OPTIM.WARMUP_EPOCH"] > 0 and values["OPTIM.WARMUP_TYPE"] == "linear",
    ),
    (
        ("MODEL.PRUNE.MIX",),
        "MODEL.PRUNE.AT and .KEEP",
        lambda values: bool(values["MODEL.PRUNE.AT"] and values["MODEL.PRUNE.KEEP"]),
    ),
)


def flat(cfg: CfgNode, prefix: str = "") -> dict[str, Any]:
    """All values by the full name of their key, as OPTIM.LR."""
    found: dict[str, Any] = {}
    for key, value in cfg.items():
        nested = isinstance(value, CfgNode)
        found |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return found


def without_effect(values: Values, defaults: Values, nodes: Mapping[str, Any]) -> list[str]:
    """The keys that differ from their default although this run does not read them.

    Args:
        values: of the run, by full key.
        defaults: by full key.
        nodes: the `Settings` that the trainer reads, by their node of TRAINER.

    Returns:
        A phrase a key.
    """
    changed = [key for key, value in values.items() if key in defaults and value != defaults[key]]
    found = [
        f"{key} (it is read with {where})"
        for keys, where, is_read in READ_WITH
        for key in keys
        if key in changed and not is_read(values)
    ]
    found += [
        f"TRAINER.{node}.{key} (nor does the published code use it)"
        for node, settings in nodes.items()
        for key in settings.UNUSED
        if f"TRAINER.{node}.{key}" in changed
    ]
    read = {"NAME", *nodes} | ({"MODAL"} if "PROMPTKD" in nodes else set())
    own = [key.split(".") for key in changed if key.startswith("TRAINER.")]
    others = sorted({parts[1] for parts in own if parts[1] not in read})
    return found + [f"TRAINER.{node} (another trainer reads it)" for node in others]


def require_sound(cfg: CfgNode, defaults: Values) -> None:
    """Check a whole config before anything is built.

    Args:
        cfg: the config.
        defaults: by full key; their types say what a trainer's own keys take.

    Raises:
        ValueError: names every key that has a value it cannot have.
    """
    values = flat(cfg)
    rules = {key: rule_of(key, defaults.get(key)) for key in values if key not in UNREAD}
    rules |= {} if _reads_more(cfg) else UNREAD
    wrong = [
        f"{key}{FLAGS.get(key, '')} must be {rule.expected}, got {values[key]!r}"
        for key, rule in rules.items()
        if not rule.fits(values[key])
    ]
    wrong = wrong or [*_faults_of_optim(values), *_faults_of_packages(values)]
    if wrong:
        raise ValueError("; ".join(wrong))


def _reads_more(cfg: CfgNode) -> bool:
    """Whether trainer or data set is not built on this project's, and may read all of Dassl."""
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY

    import datasets

    trainers, data_sets = TRAINER_REGISTRY, DATASET_REGISTRY
    is_known = cfg.TRAINER.NAME in trainers.registered_names()
    if is_known and not hasattr(trainers.get(cfg.TRAINER.NAME), "settings_class"):
        return True
    is_known = cfg.DATASET.NAME in data_sets.registered_names()
    return is_known and not issubclass(data_sets.get(cfg.DATASET.NAME), datasets.FewShotDataset)


def _faults_of_optim(values: Values) -> list[str]:
    found = []
    if values["OPTIM.LR_SCHEDULER"] == "multi_step" and min(values["OPTIM.STEPSIZE"]) < 1:
        found.append(
            "OPTIM.STEPSIZE must name epochs from 1 on with OPTIM.LR_SCHEDULER multi_step, "
            f"got {values['OPTIM.STEPSIZE']}"
        )
    if values["OPTIM.LR_SCHEDULER"] == "single_step" and len(values["OPTIM.STEPSIZE"]) > 1:
        found.append(
            "OPTIM.STEPSIZE must be one number of epochs with OPTIM.LR_SCHEDULER single_step, "
            f"got {values['OPTIM.STEPSIZE']}; multi_step takes several"
        )
    nesterov = values["OPTIM.NAME"] == "sgd" and values["OPTIM.SGD_NESTEROV"]
    if nesterov and (values["OPTIM.MOMENTUM"] == 0 or values["OPTIM.SGD_DAMPNING"] != 0):
        found.append("OPTIM.SGD_NESTEROV needs OPTIM.MOMENTUM above 0 and OPTIM.SGD_DAMPNING 0")
    return found


def _faults_of_packages(values: Values) -> list[str]:
    found, backend, mode = [], values["MODEL.COMPILE"], values["TRAIN.WANDB"]
    if backend:
        import torch._dynamo

        known = torch._dynamo.list_backends(exclude_tags=None)
        if backend not in known:
            found.append(f"MODEL.COMPILE must be one of {', '.join(known)}, got {backend!r}")
    package = None if mode == "off" else find_spec("wandb")
    if mode != "off" and not (package and package.origin):  # without: a mere folder of that name
        found.append(
            f"TRAIN.WANDB {mode} needs the package wandb, which is missing: "
            "pip install -r requirements-wandb.txt"
        )
    if (start := values["MODEL.INIT_WEIGHTS"]) and not Path(start).exists():
        found.append(f"MODEL.INIT_WEIGHTS {start} is neither a checkpoint nor the folder of a run")
    return found
