"""Save all that an interrupted run needs to end as if it had not stopped, and go on from it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dassl.utils import save_checkpoint

from trainers import distributed, health, identity, random_states
from trainers.checkpoint import BEST, POINTER, load_into, number_of, numbered, read_checkpoint

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer

logger = logging.getLogger(__name__)


def save(
    trainer: CLIPTrainer,
    epoch: int,
    directory: str | Path,
    is_best: bool = False,
    val_result: float | None = None,
    model_name: str = "",
) -> None:
    """Save a run between two epochs, and remove the checkpoints that are not to stay.

    TRAIN.KEEP_CHECKPOINTS says how many stay; where it does not, and TRAIN.CHECKPOINT_FREQ is -1,
    the newest two do, and those that were there before.

    Between epochs the sampler's place is the state of the generator that orders the pictures. Of
    several processes one writes, and each has its random states in the file.

    Args:
        trainer: after an epoch.
        epoch: that epoch, counted from 0.
        directory: output folder of the run.
        is_best: save it as model-best.pth.tar, too.
        val_result: accuracy on validation pictures.
        model_name: file name instead of the usual one.

    Raises:
        FloatingPointError: something learned is not finite; nothing is written.
    """
    if is_best or model_name == BEST:
        trainer.best_epoch = epoch + 1
    scaler, average = trainer.precision.scaler, trainer.average
    state = {
        "state_dict": trainer.model.learned.state_dict(),
        "epoch": epoch + 1,
        "optimizer": trainer.optim.state_dict(),
        "scheduler": trainer.sched.state_dict(),
        "val_result": val_result,
        "identity": identity.identity(trainer),
        "average": None if average is None else average.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "random": distributed.everyones(random_states.capture()),
        "workers": distributed.everyones(dict(trainer.workers.states)),
        "best_epoch": trainer.best_epoch,
    }
    health.require_finite_state(trainer, state["state_dict"])
    folder, settings = Path(directory) / trainer.checkpoint_name, trainer.cfg.TRAIN

    def write() -> None:
        save_checkpoint(state, folder, is_best=is_best, model_name=model_name)
        older = [p for p in numbered(folder) if number_of(p) <= epoch + 1]
        if settings.KEEP_CHECKPOINTS:
            older = older[settings.KEEP_CHECKPOINTS :]
        else:
            passing = settings.CHECKPOINT_FREQ < 0 and not model_name
            older = [p for p in older if passing and number_of(p) == epoch - 1]
        for path in older:
            path.unlink()

    distributed.on_main(write)


def resume(trainer: CLIPTrainer, directory: str | Path) -> int:
    """Go on from the newest checkpoint that is whole, if there is one and it is this run's.

    Returns:
        The number of epochs done.

    Raises:
        ValueError: the checkpoint is of another run, or of a later epoch than the last of this.
    """
    folder = Path(directory) / trainer.checkpoint_name
    own = Path(trainer.output_dir) / trainer.checkpoint_name
    distributed.on_main(lambda: tidy(own))
    for path in candidates(folder):
        try:
            saved = read_checkpoint(path)
            require_best(folder, saved)
        except ValueError as error:
            logger.warning("%s; going on from the checkpoint before it", error)
            continue
        identity.check(trainer, saved, path, to_train=True)
        if saved["epoch"] > trainer.max_epoch:
            raise ValueError(
                f"{path} is of epoch {saved['epoch']}, and this run ends with {trainer.max_epoch} "
                "(OPTIM.MAX_EPOCH); evaluate it instead, with --eval-only and --model-dir"
            )
        restore(trainer, saved, path)
        trainer.best_epoch = distributed.on_main(lambda: keep_best(folder, own))
        logger.info("Going on from %s (epoch %d)", path, saved["epoch"])
        return int(saved["epoch"])
    logger.info("No checkpoint to go on from in %s, train from scratch", folder)
    return 0


def begin(trainer: CLIPTrainer) -> None:
    """Make ready for the first epoch, which may be a later one, or for none."""
    trainer.trained = True
    trainer.epoch = max(0, trainer.start_epoch - 1)  # what is evaluated if all epochs are done
    trainer.begin_record()
    trainer.workers.watch(trainer.train_loader_x)
    trainer.train_loader_x.dataset.keep()


def tidy(folder: Path) -> None:
    """Remove what a killed run had not finished to write."""
    for unfinished in [*folder.glob(".model*.pth.tar*"), *folder.glob(f".{POINTER}.*")]:
        unfinished.unlink()


def candidates(folder: Path) -> Iterator[Path]:
    """The checkpoint that the file `checkpoint` names, then those before it, newest first."""
    pointer = folder / POINTER
    named = pointer.read_text("utf-8", "replace").strip() if pointer.is_file() else ""
    newest = folder / named
    if named and newest.is_file():
        yield newest
    for path in numbered(folder):
        if path != newest and number_of(path) <= number_of(newest):
            yield path


def require_best(folder: Path, saved: dict[str, Any]) -> None:
    """A run that has chosen a best epoch cannot go on without it.

    Raises:
        ValueError: the best model's file is missing or damaged.
    """
    if not saved.get("best_epoch"):
        return
    try:
        read_checkpoint(folder / BEST)
    except FileNotFoundError as error:
        raise ValueError(f"{folder / BEST}, the best of the epochs so far, is missing") from error


def keep_best(folder: Path, output: Path) -> int:
    """Drop a best model that cannot be read; copy one where a run goes on elsewhere.

    Args:
        folder: of the checkpoints to go on from.
        output: of this run's own; nothing is changed in another one.

    Returns:
        Its epoch, which may be the one that is to be run again; 0 where there is none.
    """
    best = folder / BEST
    if not best.is_file():
        return 0
    try:
        epoch = int(read_checkpoint(best)["epoch"])
    except ValueError as error:
        logger.warning("%s; its epoch will be run again", error)
        (output / BEST).unlink(missing_ok=True)
        return 0
    if folder.resolve() != output.resolve():
        output.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(best, output / BEST)
    return epoch


def restore(trainer: CLIPTrainer, saved: dict[str, Any], path: Path) -> None:
    """Put a run where it was; random numbers last."""
    load_into(trainer.model.learned, saved, path)
    for part, state in ((trainer.optim, "optimizer"), (trainer.sched, "scheduler")):
        if saved.get(state) is not None:
            part.load_state_dict(saved[state])
    if trainer.average is not None and saved.get("average") is not None:
        trainer.average.load_state_dict(saved["average"])
    if trainer.precision.scaler is not None and saved.get("scaler") is not None:
        trainer.precision.scaler.load_state_dict(saved["scaler"])
    place, states = distributed.rank(), saved.get("random", [])
    if len(states) != distributed.processes():
        logger.warning(
            "%s holds random states of %d processes, and this run has %d: it will not go on bit "
            "for bit",
            path,
            len(states),
            distributed.processes(),
        )
        return
    trainer.workers.states = dict(saved["workers"][place])
    random_states.restore(states[place])
