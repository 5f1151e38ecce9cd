"""Defaults, yaml files, flags and KEY VALUE pairs -> one frozen config."""

import argparse
import ast
import difflib
import re
from pathlib import Path
from typing import Any

import yaml
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from datasets.splits import read_text
from runs.arguments import settings_given
from runs.config_rules import flat, registered, require_valid, rule_of

NO_CONFIG = (AttributeError, TypeError, AssertionError, RecursionError)  # of yacs
UNREADABLE = (ValueError, SyntaxError, MemoryError, RecursionError)  # of a literal of Python
MAX_VALUES = 100_000  # of a yaml
_FITTED = "the head of Spotlighter is fitted now, and has no such constant"
REMOVED = {  # keys of earlier versions, and why there are none
    f"TRAINER.SPOTLIGHTER.{key}": _FITTED
    for key in ("SHARPNESS", "LR_MULT", "MOMENTUM", "BALANCE", "HEAD")
}
# Only a flag switches these checks off: no yaml of a stranger may.
BY_FLAG_ONLY = ("MODEL.TRUST_WEIGHTS", "MODEL.ALLOW_MISMATCH")


def build_config(args: argparse.Namespace) -> CfgNode:
    """Merge defaults, data set yaml, trainer yaml, flags and KEY VALUE pairs; check and freeze."""
    cfg = default_config()
    defaults = flat(cfg)
    for path in filter(None, (args.dataset_config_file, args.config_file)):
        merge_file(cfg, Path(path))
    if args.config_file:
        cfg.CONFIG_NAME = Path(args.config_file).stem
    merge(cfg, settings_given(args))
    merge_pairs(cfg, args.opts)
    cfg.MODEL.TRUST_WEIGHTS = args.trust_weights
    cfg.MODEL.ALLOW_MISMATCH = args.allow_mismatch
    require_valid(cfg, defaults)
    require_used_flags(args, cfg)
    cfg.freeze()
    return cfg


def changed_lines(cfg: CfgNode) -> str:
    """The keys that differ from their defaults, "KEY: value" a line."""
    defaults = flat(default_config())
    changed = {key: value for key, value in flat(cfg).items() if value != defaults.get(key)}
    return "\n".join(f"{key}: {value}" for key, value in changed.items())


def default_config() -> CfgNode:
    """Dassl's keys and this project's, with their defaults."""
    cfg = get_cfg_default()
    extend_cfg(cfg)
    return cfg


def extend_cfg(cfg: CfgNode) -> None:
    """Add what the project and the registered trainers use beyond Dassl's own keys."""
    cfg.CONFIG_NAME = ""  # stem of the trainer's yaml; names a run in tables
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all | base | new
    cfg.DATASET.LABEL = ""  # name of the data in results and tables; see docs/datasets.md
    # k/F: the k-th of F parts of the training pictures is held out, and tested; docs/protocols.md
    cfg.DATASET.FOLD = ""
    cfg.INPUT.EXIF = "auto"  # auto | upright | stored: are pictures turned as their EXIF data say?
    cfg.DATALOADER.CACHE_MB = 1024  # memory for decoded training pictures, 0 for none
    cfg.DATALOADER.SKIP_UNREADABLE = False  # go on without missing and broken pictures, count them
    # -1: one each epoch, of which the newest two stay; N: one each N epochs; 0: only the last one
    cfg.TRAIN.CHECKPOINT_FREQ = -1
    cfg.TRAIN.KEEP_CHECKPOINTS = 0  # newest checkpoints that stay beside the best one, 0 for all
    # VIEWS: augmented views of each training picture that are drawn and encoded once, and that the
    # epochs go round; 0 for fresh ones each epoch. KEEP: off | memory | disk, where features of a
    # frozen image tower are kept: in DIR ("": ~/.cache/spotlighter/features), at most MAX_GB. See
    # docs/performance.md
    cfg.FEATURES = CfgNode({"VIEWS": 0, "KEEP": "off", "DIR": "", "MAX_GB": 10.0})
    cfg.TRAIN.WANDB = "off"  # off | offline | online: Weights & Biases beside TensorBoard
    cfg.TEST.TEMPERATURE = 1.0  # divides the logits before probabilities are made of them
    cfg.TEST.TEMPERATURE_FITTED = False  # set by tools/fit_temperature.py: tables say "fitted"
    cfg.OPTIM.SGD_DAMPNING = 0.0  # Dassl's default, an int, would not let it be 0.5
    cfg.MODEL.BACKBONE.WEIGHTS = ""  # file of the backbone's weights, instead of published ones
    cfg.MODEL.TRUST_WEIGHTS = False  # set by --trust-weights alone
    cfg.MODEL.ALLOW_MISMATCH = False  # set by --allow-mismatch alone
    cfg.MODEL.COMPILE = ""  # backend of torch.compile for the image tower, as inductor
    cfg.MODEL.TEXT_CHUNK = 0  # prompts encoded at a time in training; 0: all, if memory allows
    # Blocks of the image tower (from 0) that drop patches, and how many go on; see docs/method.md 8
    cfg.MODEL.PRUNE = CfgNode({"AT": (), "KEEP": (), "MIX": 1.0})
    for name in TRAINER_REGISTRY.registered_names():
        if hasattr(trainer := TRAINER_REGISTRY.get(name), "extend_cfg"):
            trainer.extend_cfg(cfg)


def require_used_flags(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Refuse flags, and keys that name files, that the command would not read."""
    trainer = registered(TRAINER_REGISTRY, cfg.TRAINER.NAME)
    learns = getattr(trainer, "learns", None)  # unknown of a trainer that is not built on ours
    trains, found = not args.eval_only and learns is not False, []
    for flag, value in (("--model-dir", args.model_dir), ("--load-epoch", args.load_epoch)):
        if value not in (None, "") and not args.eval_only:
            found.append(f"{flag} is read with --eval-only alone; add it, or leave {flag} out")
    if args.eval_only and learns and not args.model_dir:
        found.append(
            f"--eval-only needs --model-dir, the folder of a run: {cfg.TRAINER.NAME} is untrained "
            "without it (the trainer ZeroshotCLIP evaluates CLIP as it is)"
        )
    for key, value in (("MODEL.INIT_WEIGHTS", cfg.MODEL.INIT_WEIGHTS), ("RESUME", cfg.RESUME)):
        if value and not trains:
            found.append(f"{key} is read in training alone, and this run does not train")
    resume = Path(cfg.RESUME or cfg.OUTPUT_DIR)
    is_own = resume == Path(cfg.OUTPUT_DIR)
    if trains and not is_own and not any(resume.glob("*/model*.pth.tar*")):
        found.append(f"--resume {cfg.RESUME} holds no checkpoint to go on from")
    if found:
        raise ValueError("; ".join(found))


def merge_file(cfg: CfgNode, path: Path) -> None:
    """Merge a yaml into a config, but for the keys that only a flag sets."""
    if not path.is_file():
        near = ", ".join(sorted(map(str, path.parent.glob("*.yaml")))) or "none"
        raise FileNotFoundError(f"config file {path} does not exist; in its folder: {near}")
    try:
        content = yaml.safe_load(read_text(path)) or {}
        if count_values(content, {}) > MAX_VALUES:
            raise ValueError(f"{path} has aliases that stand for more than {MAX_VALUES} values")
        given = {k: v for k, v in flat(CfgNode(content)).items() if k not in BY_FLAG_ONLY}
    except (yaml.YAMLError, *NO_CONFIG) as error:
        raise ValueError(f"{path} is not a yaml of keys and values: {error}") from error
    try:
        merge(cfg, given)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_run_config(model_dir: str | Path) -> CfgNode:
    """The config that a run wrote; a FileNotFoundError says that a folder holds none."""
    path = Path(model_dir) / "config.yaml"
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {model_dir}, so no run in it (--model-dir)")
    if not path.is_file():
        why = "so it is not the output folder of a run (--model-dir)"
        if path.with_name("model.json").is_file():  # of tools/export.py
            why += (
                "; it is an exported model, with which pictures are classified by: "
                f"python docs/examples/classify_onnx.py {model_dir} PICTURE ..."
            )
        raise FileNotFoundError(f"{model_dir} holds no config.yaml, {why}")
    cfg = default_config()
    merge_file(cfg, path)
    return cfg


def count_values(value: Any, known: dict[int, int]) -> int:
    """Number of values of a yaml, its aliases written out; `known`: of counted parts, by id."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = MAX_VALUES + 1  # stays for a part of itself
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(count_values(part, known) for part in parts)
    return known[id(value)]


def merge_pairs(cfg: CfgNode, pairs: list[Any]) -> None:
    """Merge [key, value, ...] into a config."""
    if len(pairs) % 2:
        raise ValueError(f"KEY VALUE pairs must come in twos, got {' '.join(map(str, pairs))}")
    merge(cfg, dict(zip(pairs[::2], pairs[1::2], strict=True)))


def merge(cfg: CfgNode, given: dict[Any, Any]) -> None:
    """Merge values into a config by the full names of their keys."""
    known = flat(cfg)  # of which only the types count
    for key, value in given.items():
        if key not in known:
            raise ValueError(unknown_key(key, known))
        if key in BY_FLAG_ONLY:
            flag = key.split(".")[1].lower().replace("_", "-")
            raise ValueError(f"{key} is set by its flag alone, --{flag}")
        try:
            cfg.merge_from_list([key, as_type_of(value, known[key])])
        except (*UNREADABLE, AssertionError) as error:
            expected = rule_of(key, known[key]).expected
            raise ValueError(f"{key} must be {expected}, got {value!r}") from error


def as_type_of(value: Any, default: Any) -> Any:
    """A value in its default's type: 50, for yacs a whole number, may be a float or a folder."""
    if isinstance(default, float) and re.fullmatch(r"[-+]?\d+", str(value)):
        return float(value)
    if isinstance(default, str) and isinstance(value, str):
        try:
            literal = ast.literal_eval(value)
        except UNREADABLE:
            return value
        return None if literal is None else repr(literal if isinstance(literal, str) else value)
    return value


def unknown_key(key: Any, known: dict[str, Any]) -> str:
    """A sentence for a key that no trainer and no data set reads."""
    if str(key).startswith("--"):
        return f"{key} must stand before the KEY VALUE pairs"
    if str(key) in REMOVED:
        return (
            f"{key} is a key of earlier versions: {REMOVED[key]}. Leave it out; a run of such a "
            "version is read by its own revision, which the first line of its config.yaml names"
        )
    near = difflib.get_close_matches(key, list(known), n=3)
    hint = f"; do you mean {' or '.join(near)}?" if near else ""
    return f"unknown config key {key}{hint}"
