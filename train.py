"""Train or evaluate: command line -> config -> trainer. Contains no method-specific code.

Usage: python train.py --help. The slow imports are inside functions: Ctrl-C ends them, too.
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

from runs.arguments import parse_args
from runs.errors import explain, shortage
from runs.files import last_checkpoint, lock_folder
from runs.logs import log_to_file, log_to_stdout, make_streams_ready
from runs.processes import exit_code_of, raise_at_sigterm

if TYPE_CHECKING:
    from yacs.config import CfgNode


SHOWN = "** Config: what differs from the defaults; log.txt and config.yaml hold all of it **"


def run(args: argparse.Namespace) -> None:
    """Train or evaluate, as the only run in the output folder."""
    import trainers  # noqa: F401  (registers the trainers, with their keys)
    from runs.config import build_config
    from runs.parallel import on_rank0_only, process_group

    args.cfg = cfg = build_config(args)  # kept for `next_steps`
    require_trainer(cfg.TRAINER.NAME)
    with process_group(cfg.USE_CUDA), on_rank0_only(lock_folder(cfg.OUTPUT_DIR)):
        run_config(cfg, args)


def require_trainer(name: str) -> None:
    """Refuse a command that names no trainer, and say which there are."""
    from dassl.engine import TRAINER_REGISTRY

    if not name:
        known = ", ".join(TRAINER_REGISTRY.registered_names())
        raise ValueError(f"no trainer is named (--trainer); there are {known}")


def run_config(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Build the trainer of a config; train or evaluate. Each process of torchrun calls it."""
    import torch
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed, setup_logger

    import datasets  # noqa: F401  (registers the data sets)
    from runs.config import default_config
    from runs.config_rules import flat, without_effect
    from runs.parallel import is_rank0
    from runs.record import dataset_of

    logger = logging.getLogger("trainers")
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    torch.use_deterministic_algorithms(args.deterministic)
    if is_rank0():
        setup_logger(cfg.OUTPUT_DIR)
    log_to_stdout(logging.INFO if is_rank0() else logging.ERROR)
    log_config(cfg)
    trainer = build_trainer(cfg)
    if hasattr(trainer, "settings_read"):  # of a trainer that is not built on ours it is unknown
        read = trainer.settings_read()
        if unread := without_effect(flat(cfg), flat(default_config()), read):
            logger.warning("Set, and without effect here: %s", "; ".join(unread))
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.state.source_dataset = dataset_of(args.model_dir)
        trainer.begin_record()
        trainer.test()
    elif not args.no_train:
        trainer.train()


def log_config(cfg: CfgNode) -> None:
    """Write the whole config to log.txt; show what differs from the defaults."""
    from dassl.utils import collect_env_info

    from runs.config import changed_lines
    from runs.data import warn_of_workers

    log_to_file(f"** Config **\n{cfg}\n{collect_env_info()}\n")
    logging.getLogger("trainers").info("%s\n%s", SHOWN, changed_lines(cfg))
    warn_of_workers(cfg)


def main() -> int:
    """Run; the exit code is 2 for an error that the user can correct, and 1 for any other."""
    make_streams_ready()
    args = parse_args()
    threading.excepthook = lambda met: to_stderr(  # as TensorBoard's, if a disk is full
        f"a thread has stopped ({met.exc_value}); the run goes on without it"
    )
    raise_at_sigterm()
    try:
        run(args)
    except KeyboardInterrupt as stopped:
        to_stderr(f"interrupted; {next_steps(args) or 'nothing was written'}")
        return exit_code_of(stopped)
    except Exception as error:
        if args.debug:
            raise
        return report(error, args)
    return 0


def report(error: Exception, args: argparse.Namespace) -> int:
    """Print what happened, where, and what to do; returns the exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises when a worker dies
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    traceback.clear_frames(error.__traceback__)  # ends the loader, which would print more
    sys.unraisablehook = hook
    said = explain(error)
    if not said:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        to_stderr(f"error: not foreseen: {what}; --debug shows where")
        return 1
    if shortage(error) and (left := next_steps(args)):  # by now the run's files are closed
        said = f"{said}; {left}"
    if not getattr(error, "reported_by_rank0", False):  # of several processes, one prints
        to_stderr(f"error: {said}")
    return 2


def next_steps(args: argparse.Namespace) -> str:
    """The last checkpoint of a stopped run, and what the same command does; "" before it began."""
    if "cfg" not in args:
        return ""
    if args.eval_only:
        return "the same command evaluates anew"
    cfg = args.cfg
    kept = last_checkpoint(Path(cfg.OUTPUT_DIR))
    if kept is None:
        begins = f"begins again from {cfg.RESUME}" if cfg.RESUME else "begins anew"
        return f"no checkpoint was written to {cfg.OUTPUT_DIR}, so the same command {begins}"
    epoch = kept.name.rpartition("-")[2]
    which = f"the checkpoint of epoch {epoch}" if epoch.isdecimal() else "the best checkpoint"
    return f"{which} is {kept}; the same command goes on from there"


def to_stderr(what: str) -> None:
    """A line on stderr, which may be closed by now."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"train.py: {what}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
