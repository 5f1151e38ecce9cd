r"""The command line of train.py: CoOp's flags, then KEY VALUE pairs for the config.

Example:
    python train.py --root data --trainer CoOp --seed 1 --output-dir output/try \
        --dataset-config-file configs/datasets/emoji_animals.yaml \
        --config-file configs/trainers/CoOp/tiny_emoji.yaml DATASET.NUM_SHOTS 16
"""

import argparse
from typing import Any

# Flags that set a config key: the key, and the help.
SETTINGS = {
    "--trainer": ("TRAINER.NAME", "name of the trainer, as CoOp; without one, all are listed"),
    "--root": ("DATASET.ROOT", "folder that holds all data sets"),
    "--output-dir": ("OUTPUT_DIR", "folder of the run; an unfinished run in it is resumed"),
    "--seed": ("SEED", "fixes random draws if 0 or more (for one value of NUM_WORKERS)"),
    "--backbone": ("MODEL.BACKBONE.NAME", "name of the CLIP model"),
    "--weights": ("MODEL.BACKBONE.WEIGHTS", "file of CLIP weights (default: published weights)"),
    "--transforms": ("INPUT.TRANSFORMS", "training transforms, in order"),
    "--resume": ("RESUME", "resume from the newest checkpoint in this folder"),
    "--head": ("MODEL.HEAD.NAME", "for your own trainers"),
    "--source-domains": ("DATASET.SOURCE_DOMAINS", "for your own domain data sets"),
    "--target-domains": ("DATASET.TARGET_DOMAINS", "for your own domain data sets"),
}
FLAG_OF = {key: f" ({flag})" for flag, (key, _) in SETTINGS.items()}
FILES = {
    "--config-file": "yaml of the trainer",
    "--dataset-config-file": "yaml of the data set",
    "--model-dir": "folder of the run to evaluate (--eval-only)",
}
SWITCHES = {
    "--eval-only": "evaluate the run in --model-dir; do not train",
    "--no-train": "build data and model; do not train",
    "--deterministic": "use deterministic kernels only",
    "--trust-weights": "load a weights file whose SHA-256 is not a published one",
    "--allow-mismatch": "load a checkpoint that was written with other settings",
    "--debug": "show the traceback of an error",
}
# The help by what a reader wants.
GROUPS = {
    "what is run": "--trainer --config-file --dataset-config-file --root --output-dir --seed",
    "the model and its pictures": "--backbone --weights --transforms",
    "evaluate, or go on": "--eval-only --model-dir --load-epoch --no-train --resume",
    "checks and errors": "--deterministic --trust-weights --allow-mismatch --debug",
    "for trainers and data sets of your own": "--head --source-domains --target-domains",
}
# Flags of the published TextRefiner and Spotlighter that are config keys here.
KEYS_INSTEAD = {
    "--loss-factor": "TRAINER.TF.BALANCE (Spotlighter has no such loss)",
    "--distill-factor": "TRAINER.TF.DISTILL (Spotlighter: TRAINER.SPOTLIGHTER.DISTILL)",
    "--alpha": "TRAINER.TF.ALPHA (Spotlighter: TRAINER.SPOTLIGHTER.ALPHA)",
    "--memory-size": "TRAINER.TF.MEMORY_SIZE (Spotlighter: TRAINER.SPOTLIGHTER.PROTOTYPES a class)",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags, and `opts`: the words of KEY VALUE pairs."""
    parser = argparse.ArgumentParser(
        usage="python train.py [flags] [KEY VALUE ...]",
        description="Train or evaluate a prompt tuner for CLIP.",
        epilog=__doc__[__doc__.index("Example:") :],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    for title, flags in GROUPS.items():
        group = parser.add_argument_group(title)
        for flag in flags.split():
            group.add_argument(flag, **options_of(flag))
    for flag in KEYS_INSTEAD:
        add(flag, help=argparse.SUPPRESS)
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys to set")
    args = parser.parse_args(argv)
    for flag, key in KEYS_INSTEAD.items():
        if value_of(args, flag) is not None:
            parser.error(f"{flag} is a config key here: {key}; give it as KEY VALUE")
    return args


def options_of(flag: str) -> dict[str, Any]:
    """What argparse has to know of a flag."""
    if flag in SWITCHES:
        return {"action": "store_true", "help": SWITCHES[flag]}
    if flag == "--load-epoch":
        return {"type": int, "help": "evaluate the checkpoint of this epoch (--eval-only)"}
    kinds: dict[str, dict[str, Any]] = {"--seed": {"type": int}}
    lists = ("--source-domains", "--target-domains", "--transforms")
    kinds |= {flag: {"nargs": "+"} for flag in lists}
    meaning = FILES[flag] if flag in FILES else SETTINGS[flag][1]
    return {"help": meaning, **kinds.get(flag, {"default": ""})}


def value_of(args: argparse.Namespace, flag: str) -> Any:
    """The value of a flag by its spelling, as "--output-dir"."""
    return vars(args)[flag[2:].replace("-", "_")]


def settings_given(args: argparse.Namespace) -> dict[str, Any]:
    """The values of the given flags, by the config keys that they set."""
    values = {key: value_of(args, flag) for flag, (key, _) in SETTINGS.items()}
    return {key: value for key, value in values.items() if value not in (None, "")}
