"""Train and evaluate: arguments -> config -> trainer. Knows no method.

Example:
    python train.py --root data --trainer CoOp --seed 1 --output-dir output/try \
        --dataset-config-file configs/datasets/emoji_animals.yaml \
        --config-file configs/trainers/CoOp/tiny_emoji.yaml DATASET.NUM_SHOTS 16
"""

from __future__ import annotations

import argparse
import difflib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yacs.config import CfgNode

USER_ERRORS = (ValueError, OSError, ModuleNotFoundError)
PROJECT_LOGGERS = ("trainers", "models", "datasets")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """CoOp's flags; what is left over is KEY VALUE pairs for the config."""
    parser = argparse.ArgumentParser(description="Train or evaluate a prompt tuner for CLIP.")
    add = parser.add_argument
    add("--root", default="", help="folder of all data sets")
    add("--output-dir", default="", help="where the run writes; an unfinished run is resumed")
    add("--resume", default="", help="folder of checkpoints to go on from")
    add("--seed", type=int, default=None, help="0 or more fixes all random draws")
    add("--source-domains", nargs="+", default=None, help="for domain adaptation")
    add("--target-domains", nargs="+", default=None, help="for domain adaptation")
    add("--transforms", nargs="+", default=None, help="training transforms, in order")
    add("--config-file", default="", help="yaml of the trainer")
    add("--dataset-config-file", default="", help="yaml of the data set")
    add("--trainer", default="", help="name of the trainer")
    add("--backbone", default="", help="name of the CLIP model")
    add("--head", default="", help="name of the head")
    add("--eval-only", action="store_true", help="evaluate, do not train")
    add("--model-dir", default="", help="folder of the run to evaluate")
    add("--load-epoch", type=int, default=None, help="evaluate that epoch's checkpoint")
    add("--no-train", action="store_true", help="build everything, train nothing")
    add("--deterministic", action="store_true", help="deterministic kernels only")
    add("--debug", action="store_true", help="show the traceback of an error")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys to set")
    return parser.parse_args(argv)


def build_config(args: argparse.Namespace) -> CfgNode:
    """Defaults, data set yaml, trainer yaml, flags, KEY VALUE pairs; frozen.

    Raises:
        ValueError: an unknown key or an odd number of KEY VALUE words.
        FileNotFoundError: a config file that is not there.
    """
    from dassl.config import get_cfg_default

    from trainers import extend_cfg

    cfg = get_cfg_default()
    extend_cfg(cfg)
    for path in filter(None, (args.dataset_config_file, args.config_file)):
        merge_file(cfg, Path(path))
    if args.config_file:
        cfg.CONFIG_NAME = Path(args.config_file).stem
    flags = {
        "DATASET.ROOT": args.root,
        "OUTPUT_DIR": args.output_dir,
        "RESUME": args.resume,
        "SEED": args.seed,
        "DATASET.SOURCE_DOMAINS": args.source_domains,
        "DATASET.TARGET_DOMAINS": args.target_domains,
        "INPUT.TRANSFORMS": args.transforms,
        "TRAINER.NAME": args.trainer,
        "MODEL.BACKBONE.NAME": args.backbone,
        "MODEL.HEAD.NAME": args.head,
    }
    given = {key: value for key, value in flags.items() if value not in (None, "")}
    merge_pairs(cfg, [word for pair in given.items() for word in pair])
    merge_pairs(cfg, args.opts)
    cfg.freeze()
    return cfg


def merge_file(cfg: CfgNode, path: Path) -> None:
    """Merge a yaml into a config."""
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.yaml"))
        raise FileNotFoundError(
            f"config file {path} does not exist; in its folder: {', '.join(near) or 'none'}"
        )
    try:
        cfg.merge_from_file(str(path))
    except KeyError as error:
        raise ValueError(f"{path}: {unknown_key(cfg, error)}") from error
    except Exception as error:  # yaml's and yacs's own, of many kinds
        raise ValueError(f"{path} is not a valid config: {error}") from error


def merge_pairs(cfg: CfgNode, pairs: list) -> None:
    """Merge [key, value, ...] into a config."""
    if len(pairs) % 2:
        raise ValueError(f"KEY VALUE pairs must come in twos, got {' '.join(map(str, pairs))}")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if key not in config_keys(cfg):
            raise ValueError(unknown_key(cfg, key))
        try:
            cfg.merge_from_list([key, tuple(value) if isinstance(value, list) else value])
        except (ValueError, AssertionError) as error:
            raise ValueError(f"config key {key} cannot be {value!r}: {error}") from error


def config_keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    """Full names of all keys."""
    found = []
    for key, value in cfg.items():
        nested = hasattr(value, "merge_from_list")
        found += config_keys(value, f"{prefix}{key}.") if nested else [prefix + key]
    return found


def unknown_key(cfg: CfgNode, key: object) -> str:
    """A sentence for a key that no trainer and no data set reads."""
    name = str(key).strip("'\"").removeprefix("Non-existent config key: ")
    near = difflib.get_close_matches(name, config_keys(cfg), n=3)
    hint = f"; do you mean {' or '.join(near)}?" if near else ""
    return f"unknown config key {name}{hint}"


def run(args: argparse.Namespace) -> None:
    """Build the trainer; train or evaluate."""
    cfg = build_config(args)

    import torch
    from dassl.engine import build_trainer
    from dassl.utils import collect_env_info, set_random_seed, setup_logger

    import datasets  # noqa: F401  (registers the data sets)
    from trainers.run_record import write_config

    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    torch.use_deterministic_algorithms(args.deterministic)
    setup_logger(cfg.OUTPUT_DIR)
    log_to_stdout()
    logging.getLogger("trainers").info("** Config **\n%s\n%s", cfg, collect_env_info())
    trainer = build_trainer(cfg)
    write_config(trainer.cfg, cfg.OUTPUT_DIR)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.test()
    elif not args.no_train:
        trainer.train()


def log_to_stdout() -> None:
    """Send the project's own messages where Dassl's go; after `setup_logger` redirected stdout."""
    handler = logging.StreamHandler(sys.stdout)
    for name in PROJECT_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def main() -> int:
    """Run; an error of the user's ends in one sentence and exit code 2."""
    args = parse_args()
    try:
        run(args)
    except USER_ERRORS as error:
        if args.debug:
            raise
        sys.stderr.write(f"train.py: error: {' '.join(str(error).split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
