"""Train or evaluate: command line -> config -> trainer. Contains no method-specific code.

Usage: python train.py --help. The slow imports are inside functions: Ctrl-C ends them, too.
"""

from __future__ import annotations

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
from runs.files import lock_folder, what_is_left
from runs.logs import log_to_stdout, make_streams_ready
from runs.processes import exit_code_of, raise_at_sigterm

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from yacs.config import CfgNode

RUN = "of_run"  # attribute of an error: config and arguments of the run that it stopped


def run(args: argparse.Namespace) -> None:
    """Train or evaluate, as the only run in the output folder."""
    import trainers  # noqa: F401  (registers the trainers, with their keys)
    from runs.config import build_config
    from runs.parallel import in_main, process_group

    cfg = build_config(args)
    try:
        with process_group(cfg.USE_CUDA), in_main(lock_folder(cfg.OUTPUT_DIR)):
            run_config(cfg, args)
    except BaseException as stopped:
        setattr(stopped, RUN, (cfg, args))
        raise


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
    warn_of_keys_without_effect(cfg, trainer)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.state.source_dataset = dataset_of(args.model_dir)
        trainer.begin_record()
        trainer.test()
    elif not args.no_train:
        trainer.train()


def warn_of_keys_without_effect(cfg: CfgNode, trainer: Any) -> None:
    """Name the keys that were set and that this run does not read."""
    from runs.config import default_config
    from runs.config_rules import flat, without_effect

    if not hasattr(trainer, "settings_read"):  # not built on ours: what it reads is unknown
        return
    found = without_effect(flat(cfg), flat(default_config()), trainer.settings_read())
    if found:
        logging.getLogger("trainers").warning("Set, and without effect here: %s", "; ".join(found))


def main() -> int:
    """Run. The exit code is 2 for an error that the user can mend, and 1 for any other."""
    make_streams_ready()
    args = parse_args()
    threading.excepthook = lambda met: to_stderr(
        f"a thread has stopped ({met.exc_value}); the run goes on without it"
    )  # as TensorBoard's, where a disk is full
    raise_at_sigterm()
    try:
        run(args)
    except KeyboardInterrupt as stopped:
        to_stderr(f"interrupted; {what_now(stopped) or 'nothing was written'}")
        return exit_code_of(stopped)
    except Exception as error:
        if args.debug:
            raise
        return report(error)
    return 0


def report(error: Exception) -> int:
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
    if shortage(error) and (left := what_now(error)):  # by now the run's files are closed
        said = f"{said}; {left}"
    if not getattr(error, "said_by_main", False):  # of several processes, one prints
        to_stderr(f"error: {said}")
    return 2


def what_now(error: BaseException) -> str:
    """What a stopped run has left, and what the same command does; "" if it had not begun."""
    if not hasattr(error, RUN):
        return ""
    cfg, args = getattr(error, RUN)
    if args.eval_only:
        return "the same command evaluates anew"
    return what_is_left(Path(cfg.OUTPUT_DIR), cfg.RESUME)


def to_stderr(what: str) -> None:
    """A line on stderr, which may be closed by now."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"train.py: {what}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
