r"""Train and evaluate: arguments -> config -> trainer. Knows no method.

Example:
    python train.py --root data --trainer CoOp --seed 1 --output-dir output/try \
        --dataset-config-file configs/datasets/emoji_animals.yaml \
        --config-file configs/trainers/CoOp/tiny_emoji.yaml DATASET.NUM_SHOTS 16
"""

from __future__ import annotations

import argparse
import io
import logging
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from tools.sweeps.guard import code_of, hear_sigterm

if TYPE_CHECKING:
    from yacs.config import CfgNode

# What a user can mend: input, files, packages, memory, and a loss that diverged.
USER_ERRORS = (ValueError, OSError, ModuleNotFoundError, FloatingPointError, MemoryError)
PROJECT_LOGGERS = ("trainers", "models", "datasets")


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
    add("--seed", type=int, default=None, help="0 or more fixes all random draws")
    add("--source-domains", nargs="+", default=None, help="for domain adaptation")
    add("--target-domains", nargs="+", default=None, help="for domain adaptation")
    add("--transforms", nargs="+", default=None, help="training transforms, in order")
    add("--config-file", default="", help="yaml of the trainer")
    add("--dataset-config-file", default="", help="yaml of the data set")
    add("--trainer", default="", help="name of the trainer")
    add("--backbone", default="", help="name of the CLIP model")
    add("--weights", default="", help="file of its weights, instead of the published ones")
    add("--head", default="", help="name of the head")
    add("--eval-only", action="store_true", help="evaluate, do not train")
    add("--model-dir", default="", help="folder of the run to evaluate")
    add("--load-epoch", type=int, default=None, help="evaluate that epoch's checkpoint")
    add("--no-train", action="store_true", help="build everything, train nothing")
    add("--deterministic", action="store_true", help="deterministic kernels only")
    add("--trust-weights", action="store_true", help="load CLIP weights of another SHA-256")
    add("--allow-mismatch", action="store_true", help="load a checkpoint of other settings")
    add("--debug", action="store_true", help="show the traceback of an error")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys to set")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Build the trainer; train or evaluate, as the only run in the output folder."""
    from trainers.config import build_config
    from trainers.distributed import in_main, process_group
    from trainers.output_folder import sole_writer

    cfg = build_config(args)
    with process_group(cfg.USE_CUDA), in_main(sole_writer(cfg.OUTPUT_DIR)):
        run_config(cfg, args)


def run_config(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Build the trainer of a config; train or evaluate. The processes of torchrun all come here."""
    import torch
    from dassl.engine import build_trainer
    from dassl.utils import collect_env_info, set_random_seed, setup_logger

    import datasets  # noqa: F401  (registers the data sets)
    from trainers.distributed import is_main
    from trainers.run_record import dataset_of

    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    torch.use_deterministic_algorithms(args.deterministic)
    if is_main():
        setup_logger(cfg.OUTPUT_DIR)
    log_to_stdout(logging.INFO if is_main() else logging.ERROR)
    logging.getLogger("trainers").info("** Config **\n%s\n%s", cfg, collect_env_info())
    trainer = build_trainer(cfg)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.trained_on = dataset_of(args.model_dir)
        trainer.begin_record()
        trainer.test()
    elif not args.no_train:
        trainer.train()


def let_names_through() -> None:
    """Print names of files that are no UTF-8 escaped, and read them, instead of stopping there."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            how = "surrogateescape" if stream is sys.stdin else "backslashreplace"
            stream.reconfigure(errors=how)


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
    args = parse_args()
    let_names_through()
    threading.excepthook = lambda met: sys.stderr.write(
        f"train.py: a thread has stopped ({met.exc_value}); the run goes on without it\n"
    )  # as TensorBoard's, where a disk is full
    hear_sigterm()
    try:
        run(args)
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(
            "train.py: interrupted; what was saved is whole, and the same command goes on from the "
            "last checkpoint\n"
        )
        return code_of(interrupt)
    except Exception as error:
        if args.debug:
            raise
        return report(error)
    return 0


def report(error: Exception) -> int:
    """Say what happened, where, and what to do; returns the exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where torch raises what workers end by
    said = said_of(error)
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    traceback.clear_frames(error.__traceback__)  # a loader that lacks workers says more than that
    sys.unraisablehook = hook
    if said:
        if not getattr(error, "said_by_main", False):  # of several processes, one speaks
            sys.stderr.write(f"train.py: error: {said}\n")
        return 2
    what = " ".join(f"{type(error).__name__}: {error}".split())
    sys.stderr.write(f"train.py: error: not foreseen: {what}; --debug shows where\n")
    return 1


def said_of(error: Exception) -> str:
    """One sentence for what the user can mend; empty for all else."""
    if isinstance(error, ModuleNotFoundError):  # perhaps one that the line below needs
        return str(error)
    from trainers.faults import of_the_machine, sentence

    if short := of_the_machine(error):
        return f"{short}; the same command goes on from the last checkpoint"
    return sentence(error) if isinstance(error, USER_ERRORS) else ""


if __name__ == "__main__":
    sys.exit(main())
