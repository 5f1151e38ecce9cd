"""Save all that an interrupted run needs to end as if it had not stopped, and go on from it."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from dassl.utils import save_checkpoint
from torch.optim import Optimizer

from models.clip.plain_files import not_finite
from models.clip.weights import misfits
from runs import health, identity
from runs import parallel as distributed
from runs import rng as random_states
from runs.checkpoint import BEST, POINTER, load_into, number_of, numbered, read_checkpoint

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer

logger = logging.getLogger(__name__)

BUFFER = "momentum_buffer"  # torch's name of it
COUNTERS = ("scale", "_growth_tracker")  # of a GradScaler; the rest of its state is settings


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
        require_own(trainer, saved, path)
        try:
            restore(trainer, saved, path)
        except ValueError as error:
            logger.warning("%s; going on from the checkpoint before it", error)
            continue
        best = distributed.on_main(lambda: keep_best(folder, own))
        trainer.best_epoch, trainer.best_result = best or (0, trainer.best_result)
        logger.info("Going on from %s (epoch %d)", path, saved["epoch"])
        return int(saved["epoch"])
    logger.info("No checkpoint to go on from in %s, train from scratch", folder)
    return 0


def require_own(trainer: CLIPTrainer, saved: dict[str, Any], path: Path) -> None:
    """Refuse to go on from a checkpoint of another run.

    Raises:
        ValueError: its identity is another, it is of a later epoch, or of another optimiser.
    """
    identity.check(trainer, saved, path, to_train=True)
    if saved["epoch"] > trainer.max_epoch:
        raise ValueError(
            f"{path} is of epoch {saved['epoch']}, and this run ends with {trainer.max_epoch} "
            "(OPTIM.MAX_EPOCH); evaluate it instead, with --eval-only and --model-dir"
        )
    here = trainer.cfg.OPTIM.NAME
    there = saved.get("identity", {}).get("config", {}).get("OPTIM.NAME", here)
    if there != here:
        raise ValueError(
            f"{path} holds what the optimiser {there} remembers, and this run has {here} "
            "(OPTIM.NAME), which cannot go on with it; begin in another --output-dir"
        )


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
    """Put a run where it was, or leave it as it is; random numbers last.

    Weights, moments and counters are the checkpoint's. Settings of the optimiser and the schedule
    are the config's, which may have been changed on purpose (--allow-mismatch).

    Raises:
        ValueError: something saved is of another form than what this run would save.
    """
    moments, scale = moments_of(trainer, saved, path), scale_of(trainer, saved, path)
    average, states = trainer.average, random_states_of(saved, path)
    if average is not None:
        require_fit(average.sums, saved.get("average") or {}, f"{path}, average")
    load_into(trainer.model.learned, saved, path)
    trainer.optim.load_state_dict(trainer.optim.state_dict() | {"state": moments})
    advance(trainer, saved["epoch"])
    if average is not None:
        average.load_state_dict(saved["average"], saved["epoch"])
    if trainer.precision.scaler is not None:
        trainer.precision.scaler.load_state_dict(scale)
    if states is not None:
        trainer.workers.states = states[1]
        random_states.restore(states[0])


def advance(trainer: CLIPTrainer, epochs: int) -> None:
    """Have the schedule of the config where it is after some epochs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step")
        for _ in range(epochs):
            trainer.sched.step()


def moments_of(trainer: CLIPTrainer, saved: dict[str, Any], path: Path) -> dict[int, Any]:
    """What the optimiser remembers of each parameter, as a checkpoint has it.

    Raises:
        ValueError: it is not what this run's optimiser would remember.
    """
    needed = moments_after_a_step(trainer.optim)
    found = {}
    for place, known in (saved.get("optimizer") or {}).get("state", {}).items():
        own = needed.get(place, {})
        # A momentum that was 0 has left no buffer.
        new = {k: v for k, v in own.items() if k == BUFFER and trainer.cfg.MODEL.ALLOW_MISMATCH}
        known = {k: as_tensor(v) for k, v in known.items() if v is not None and k in own}
        found[place] = new | known
        require_fit(own, found[place], f"{path}, optimizer, parameter {place}")
    number = sum(len(group["params"]) for group in trainer.optim.param_groups)
    lost = needed and not found and not saved.get("scaler")  # a scaler may skip all steps
    if lost or not set(found) <= set(range(number)):
        raise ValueError(f"{path}, optimizer, is not of the {number} parameters of this run")
    return found


def as_tensor(number: Any) -> Any:
    """A count of steps as torch keeps it now; it was an int."""
    return number if torch.is_tensor(number) else torch.tensor(float(number))


def moments_after_a_step(optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    """What an optimiser of these settings remembers; its own is left as it is."""
    groups = [
        {**group, "params": [torch.zeros_like(p).requires_grad_() for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    kind: Any = type(optimizer)
    twin = kind(groups)
    for group in groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    twin.step()
    return {place: dict(state) for place, state in twin.state_dict()["state"].items()}


def require_fit(own: dict[str, Any], there: dict[str, Any], what: str) -> None:
    """Refuse tensors of other names, shapes or kinds, and those that are no numbers.

    Raises:
        ValueError: names what differs.
    """
    there = {name: there[name] for name in own if name in there}
    if wrong := [*misfits(own, there, own), *not_finite(there)]:
        raise ValueError(f"{what}, is of another form than this run's: {'; '.join(wrong)}")


def scale_of(trainer: CLIPTrainer, saved: dict[str, Any], path: Path) -> dict[str, Any]:
    """The scale of the loss and the steps since it changed; how it changes is the run's.

    Raises:
        ValueError: it is no scale.
    """
    scaler, there = trainer.precision.scaler, saved.get("scaler") or {}
    if scaler is None:
        return {}
    own = scaler.state_dict()
    state = own | {k: v for k, v in there.items() if k in COUNTERS and k in own}
    if any(type(v) is not type(own[k]) or not 0 <= v < float("inf") for k, v in state.items()):
        raise ValueError(f"{path}, scaler, is of another form than this run's")
    return dict(state)


def random_states_of(saved: dict[str, Any], path: Path) -> tuple[str, dict[int, str]] | None:
    """The random states of this process and of its workers; None if a run has other processes.

    Raises:
        ValueError: they cannot be restored.
    """
    states, workers = saved.get("random", []), saved.get("workers", [])
    place, processes = distributed.rank(), distributed.processes()
    if len(states) != processes:
        logger.warning(
            "%s holds random states of %d processes, and this run has %d: it will not go on bit "
            "for bit",
            path,
            len(states),
            processes,
        )
        return None
    try:
        found = states[place], dict(workers[place])
        for state in (found[0], *found[1].values()):
            random_states.require_whole(state)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} holds random states that cannot be restored") from error
    return found


def schedule_state(schedule: Any) -> dict[str, Any]:
    """The state of a schedule as plain data; upstream's warm-up has an object in it."""
    state = schedule.state_dict()
    after = getattr(schedule, "successor", None)
    return state if after is None else state | {"successor": schedule_state(after)}
