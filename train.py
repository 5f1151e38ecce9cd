r"""Train and evaluate: arguments -> config -> trainer. Knows no method.

Example:
    python train.py --root data --trainer CoOp --seed 1 --output-dir output/try \
        --dataset-config-file configs/datasets/emoji_animals.yaml \
        --config-file configs/trainers/CoOp/tiny_emoji.yaml DATASET.NUM_SHOTS 16
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from runs.processes import code_of, hear_sigterm
from tools.shared.command_line import USER_ERRORS, make_streams_ready

if TYPE_CHECKING:
    from typing import Any

    from yacs.config import CfgNode

RUN = "of_run"  # attribute of an error: config and arguments of the run that it stopped
PROJECT_LOGGERS = ("trainers", "models", "runs", "inference", "datasets")
# Flags of the published TextRefiner and Spotlighter that are config keys here.
KEYS_INSTEAD = {
    "--loss-factor": "TRAINER.TF.BALANCE (Spotlighter: TRAINER.SPOTLIGHTER.BALANCE)",
    "--distill-factor": "TRAINER.TF.DISTILL (Spotlighter: TRAINER.SPOTLIGHTER.DISTILL)",
    "--alpha": "TRAINER.TF.ALPHA (Spotlighter: TRAINER.SPOTLIGHTER.ALPHA)",
    "--memory-size": "TRAINER.TF.MEMORY_SIZE (Spotlighter: TRAINER.SPOTLIGHTER.PROTOTYPES a class)",
}


class KeyInstead(argparse.Action):
    """A flag that is a config key here: names the key."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        """Refuse it."""
        flag = self.option_strings[0]
        parser.error(f"{flag} is a config key here: {KEYS_INSTEAD[flag]}; give it as KEY VALUE")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """CoOp's flags; what is left over is KEY VALUE pairs for the config."""
    parser = argparse.ArgumentParser(
        description="Train or evaluate a prompt tuner for CLIP.",
        epilog=__doc__[__doc__.index("Example:") :],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--root", default="", help="folder of all data sets")
    add("--output-dir", default="", help="where the run writes; an unfinished run is resumed")
    add("--resume", default="", help="folder of checkpoints to go on from")
    add("--seed", type=int, default=None, help="0 or more fixes random draws (for one NUM_WORKERS)")
    add("--source-domains", nargs="+", default=None, help="for your own domain data sets")
    add("--target-domains", nargs="+", default=None, help="for your own domain data sets")
    add("--transforms", nargs="+", default=None, help="training transforms, in order")
    add("--config-file", default="", help="yaml of the trainer")
    add("--dataset-config-file", default="", help="yaml of the data set")
    add("--trainer", default="", help="name of the trainer")
    add("--backbone", default="", help="name of the CLIP model")
    add("--weights", default="", help="file of its weights, instead of the published ones")
    add("--head", default="", help="for your own trainers")
    add("--eval-only", action="store_true", help="evaluate, do not train")
    add("--model-dir", default="", help="folder of the run to evaluate (--eval-only)")
    add("--load-epoch", type=int, default=None, help="evaluate that epoch's checkpoint")
    add("--no-train", action="store_true", help="build everything, train nothing")
    add("--deterministic", action="store_true", help="deterministic kernels only")
    add("--trust-weights", action="store_true", help="load CLIP weights of another SHA-256")
    add("--allow-mismatch", action="store_true", help="load a checkpoint of other settings")
    add("--debug", action="store_true", help="show the traceback of an error")
    for flag in KEYS_INSTEAD:
        add(flag, action=KeyInstead, help=argparse.SUPPRESS)
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys to set")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Build the trainer; train or evaluate, as the only run in the output folder."""
    import trainers  # noqa: F401  (registers the trainers, with their keys)
    from runs.config import build_config
    from runs.files import sole_writer
    from runs.parallel import in_main, process_group

    cfg = build_config(args)
    try:
        with process_group(cfg.USE_CUDA), in_main(sole_writer(cfg.OUTPUT_DIR)):
            run_config(cfg, args)
    except BaseException as stopped:
        setattr(stopped, RUN, (cfg, args))
        raise


def what_now(error: BaseException) -> str:
    """What a run that was stopped has left, and what the same command does; else ""."""
    from runs.files import what_is_left

    if not hasattr(error, RUN):
        return ""
    cfg, args = getattr(error, RUN)
    if args.eval_only:
        return "the same command evaluates anew"
    return what_is_left(Path(cfg.OUTPUT_DIR), cfg.RESUME)


def run_config(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Build the trainer of a config; train or evaluate. The processes of torchrun all come here."""
    import torch
    from dassl.engine import build_trainer
    from dassl.utils import collect_env_info, set_random_seed, setup_logger

    import datasets  # noqa: F401  (registers the data sets)
    from runs.parallel import is_main
    from runs.record import dataset_of

    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    torch.use_deterministic_algorithms(args.deterministic)
    if is_main():
        setup_logger(cfg.OUTPUT_DIR)
    log_to_stdout(logging.INFO if is_main() else logging.ERROR)
    logging.getLogger("trainers").info("** Config **\n%s\n%s", cfg, collect_env_info())
    trainer = build_trainer(cfg)
    tell_without_effect(cfg, trainer)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.state.source_dataset = dataset_of(args.model_dir)
        trainer.begin_record()
        trainer.test()
    elif not args.no_train:
        trainer.train()


def tell_without_effect(cfg: CfgNode, trainer: Any) -> None:
    """Warn of keys that were set and that this run does not read."""
    from runs.config import default_config
    from runs.config_rules import flat, without_effect

    if not hasattr(trainer, "settings_read"):  # it is not built on ours, and may read what it likes
        return
    found = without_effect(flat(cfg), flat(default_config()), trainer.settings_read())
    if found:
        logging.getLogger("trainers").warning("Set, and without effect here: %s", "; ".join(found))


def log_to_stdout(level: int) -> None:
    """Send the project's own messages where Dassl's go; after `setup_logger` redirected stdout."""
    logging.raiseExceptions = False  # a line that cannot be written is lost, not the run
    logging.getLogger("dassl").setLevel(level)
    handler = logging.StreamHandler(sys.stdout)
    for name in PROJECT_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


def main() -> int:
    """Run; what the user can mend ends in one sentence and exit code 2, all else in code 1."""
    make_streams_ready()
    args = parse_args()
    threading.excepthook = lambda met: say(
        f"a thread has stopped ({met.exc_value}); the run goes on without it"
    )  # as TensorBoard's, where a disk is full
    hear_sigterm()
    try:
        run(args)
    except KeyboardInterrupt as stopped:
        say(f"interrupted; {what_now(stopped) or 'nothing was written'}")
        return code_of(stopped)
    except Exception as error:
        if args.debug:
            raise
        return report(error)
    return 0


def report(error: Exception) -> int:
    """Say what happened, where, and what to do; returns the exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises when a worker dies
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    traceback.clear_frames(error.__traceback__)  # ends the loader, which would print more
    sys.unraisablehook = hook
    said = in_one_sentence(error)  # by now its files are closed, where those were short
    if not said:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        say(f"error: not foreseen: {what}; --debug shows where")
        return 1
    if not getattr(error, "said_by_main", False):  # of several processes, one speaks
        say(f"error: {said}")
    return 2


def say(what: str) -> None:
    """A line on stderr, which may be closed by now."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"train.py: {what}\n")
        sys.stderr.flush()


def in_one_sentence(error: Exception) -> str:
    """What happened, where, and what to do; empty for what the user cannot mend."""
    if isinstance(error, ModuleNotFoundError):  # perhaps one that the line below needs
        return str(error)
    from runs.faults import of_the_machine, sentence

    if short := of_the_machine(error):
        return "; ".join(filter(None, (short, what_now(error))))
    return sentence(error) if isinstance(error, USER_ERRORS) else ""


if __name__ == "__main__":
    sys.exit(main())
