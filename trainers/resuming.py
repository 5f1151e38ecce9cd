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
    """Save a run between two epochs, and remove checkpoints beyond TRAIN.KEEP_CHECKPOINTS.

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
        "scheduler": schedule_state(trainer.sched),
        "val_result": val_result,
        "identity": identity.identity(trainer),
        "average": None if average is None else average.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "random": distributed.everyones(random_states.capture()),
        "workers": distributed.everyones(dict(trainer.workers.states)),
        "best_epoch": trainer.best_epoch,
    }
    health.require_finite_state(trainer, state["state_dict"])
    folder, keep = Path(directory) / trainer.checkpoint_name, trainer.cfg.TRAIN.KEEP_CHECKPOINTS

    def write() -> None:
        save_checkpoint(state, folder, is_best=is_best, model_name=model_name)
        older = [p for p in numbered(folder) if number_of(p) <= epoch + 1]
        for path in older[keep:] if keep else []:
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
        best = distributed.on_main(lambda: keep_best(folder, own))
        trainer.best_epoch, trainer.best_result = best or (0, trainer.best_result)
        logger.info("Going on from %s (epoch %d)", path, saved["epoch"])
        return int(saved["epoch"])
    logger.info("No checkpoint to go on from in %s, train from scratch", folder)
    return 0


def begin(trainer: CLIPTrainer) -> None:
    """Make ready for the first epoch, which may be a later one, or for none."""
    trainer.trained = True
    trainer.epoch = max(0, trainer.start_epoch - 1)  # what is evaluated if all epochs are done
    _ = trainer.training_pictures  # as they are now, not when the first checkpoint is written
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


def keep_best(folder: Path, output: Path) -> tuple[int, float] | None:
    """Drop a best model that cannot be read; copy one where a run goes on elsewhere.

    Args:
        folder: of the checkpoints to go on from.
        output: of this run's own; nothing is changed in another one.

    Returns:
        Its epoch, which may be the one that is to be run again, and its result on validation
        pictures; None where there is none.
    """
    best = folder / BEST
    if not best.is_file():
        return None
    try:
        saved = read_checkpoint(best)
        result = saved.get("val_result")
        found = int(saved["epoch"]), -float("inf") if result is None else float(result)
    except ValueError as error:
        logger.warning("%s; its epoch will be run again", error)
        (output / BEST).unlink(missing_ok=True)
        return None
    if folder.resolve() != output.resolve():
        output.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(best, output / BEST)
    return found


def restore(trainer: CLIPTrainer, saved: dict[str, Any], path: Path) -> None:
    """Put a run where it was; random numbers last."""
    load_into(trainer.model.learned, saved, path)
    if saved.get("optimizer") is not None:
        trainer.optim.load_state_dict(saved["optimizer"])
    if saved.get("scheduler") is not None:
        restore_schedule(trainer.sched, saved["scheduler"])
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


def schedule_state(schedule: Any) -> dict[str, Any]:
    """The state of a schedule as plain data; upstream's warm-up has an object in it."""
    state = schedule.state_dict()
    after = getattr(schedule, "successor", None)
    return state if after is None else state | {"successor": schedule_state(after)}


def restore_schedule(schedule: Any, state: dict[str, Any]) -> None:
    """Put a schedule, and the one after its warm-up, where `schedule_state` was called.

    Raises:
        ValueError: the state is that of a schedule without warm-up.
    """
    after = getattr(schedule, "successor", None)
    if after is None:
        schedule.load_state_dict(state)
        return
    if "successor" not in state:
        raise ValueError("the checkpoint has no warm-up (OPTIM.WARMUP_EPOCH), and this run has one")
    restore_schedule(after, state["successor"])
    vars(schedule).update(state | {"successor": after})
