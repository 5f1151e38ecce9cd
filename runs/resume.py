"""Save all that an interrupted run needs to end as if it had not stopped, and go on from it."""

import logging
import shutil
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from dassl.utils import save_checkpoint
from torch.optim import Optimizer
from yacs.config import CfgNode

from models.clip.plain_files import not_finite
from models.clip.weights import misfits
from runs import checkpoint, health, identity, parallel, rng
from runs.checkpoint import BEST, number_of, numbered, read_checkpoint
from runs.state import RunState

logger = logging.getLogger(__name__)

BUFFER = "momentum_buffer"  # torch's name of it
COUNTERS = ("scale", "_growth_tracker")  # of a GradScaler; the rest of its state is settings


def save(
    cfg: CfgNode, state: RunState, directory: str | Path, epoch: int, is_best: bool = False,
    val_result: float | None = None, model_name: str = "",
) -> None:
    """Save a run after an epoch, counted from 0, and remove checkpoints that do not stay.

    Rank 0 writes one file for all processes, unless something learned is not finite.
    """
    if is_best or model_name == BEST:
        state.best_epoch = epoch + 1
    average = state.average
    saved: dict[str, Any] = {
        "state_dict": state.learned.state_dict(), "epoch": epoch + 1,
        "optimizer": None if state.optimiser is None else state.optimiser.state_dict(),
        "scheduler": None if state.optimiser is None else schedule_state(state.scheduler),
        "val_result": val_result, "identity": identity.identity(cfg, state),
        "average": None if average is None else average.state_dict(),
        "scaler": state.precision.scaler.state_dict() or None,
        "random": parallel.all_gather(rng.capture()),
        "workers": parallel.all_gather(dict(state.workers.states)), "best_epoch": state.best_epoch,
    }
    health.require_finite_state(cfg, state, saved["state_dict"])
    folder = Path(directory) / state.checkpoint_name

    def write() -> None:
        save_checkpoint(saved, folder, is_best=is_best, model_name=model_name)
        for path in superseded(folder, epoch, cfg.TRAIN, is_named=bool(model_name)):
            path.unlink()

    parallel.on_rank0(write)


def superseded(folder: Path, epoch: int, settings: CfgNode, *, is_named: bool) -> list[Path]:
    """The checkpoints that go once that of an epoch, counted from 0, is written."""
    older = [p for p in numbered(folder) if number_of(p) <= epoch + 1]
    if settings.KEEP_CHECKPOINTS:
        return older[settings.KEEP_CHECKPOINTS :]
    passing = settings.CHECKPOINT_FREQ < 0 and not is_named
    return [p for p in older if passing and number_of(p) == epoch - 1]


def schedule_state(schedule: Any) -> dict[str, Any]:
    """The state of a schedule as plain data; upstream's warm-up has an object in it."""
    state = schedule.state_dict()
    after = getattr(schedule, "successor", None)
    return state if after is None else state | {"successor": schedule_state(after)}


def resume(cfg: CfgNode, state: RunState, directory: str | Path) -> int:
    """Go on from the newest whole checkpoint, if it is this run's; returns its epoch."""
    folder = Path(directory) / state.checkpoint_name
    own = Path(cfg.OUTPUT_DIR) / state.checkpoint_name
    parallel.on_rank0(lambda: remove_unfinished(own))
    for path in candidates(folder):
        try:
            saved = read_checkpoint(path)
            require_best(folder, saved)
        except ValueError as error:
            logger.warning("%s; going on from the checkpoint before it", error)
            continue
        require_own(cfg, state, saved, path)
        try:
            restore(cfg, state, saved, path)
        except ValueError as error:
            logger.warning("%s; going on from the checkpoint before it", error)
            continue
        state.best_epoch, state.best_result = parallel.on_rank0(lambda: keep_best(folder, own))
        logger.info("Going on from %s (epoch %d)", path, saved["epoch"])
        return int(saved["epoch"])
    logger.info("No checkpoint to go on from in %s, train from scratch", folder)
    return 0


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed run had not finished to write."""
    for path in [*folder.glob(".model*.pth.tar*"), *folder.glob(f".{checkpoint.POINTER}.*")]:
        path.unlink()


def candidates(folder: Path) -> Iterator[Path]:
    """The checkpoint that the file `checkpoint` names, then those before it, newest first."""
    named = checkpoint.pointed_to(folder)
    newest = folder / named
    if named and newest.is_file():
        yield newest
    for path in numbered(folder):
        if path != newest and number_of(path) <= number_of(newest):
            yield path


def require_own(cfg: CfgNode, state: RunState, saved: dict[str, Any], path: Path) -> None:
    """Refuse to go on from a checkpoint of another run, of a later epoch or another optimiser."""
    identity.check(cfg, state, saved, path, to_train=True)
    if saved["epoch"] > cfg.OPTIM.MAX_EPOCH:
        raise ValueError(
            f"{path} is of epoch {saved['epoch']}, and this run ends with {cfg.OPTIM.MAX_EPOCH} "
            "(OPTIM.MAX_EPOCH); evaluate it instead, with --eval-only and --model-dir"
        )
    here = cfg.OPTIM.NAME
    there = saved.get("identity", {}).get("config", {}).get("OPTIM.NAME", here)
    if there != here:
        raise ValueError(
            f"{path} holds the state of the optimiser {there}, and this run has {here} "
            "(OPTIM.NAME), which cannot go on from it; choose another --output-dir"
        )


def require_best(folder: Path, saved: dict[str, Any]) -> None:
    """Refuse a checkpoint whose best model so far is missing or damaged."""
    if saved.get("best_epoch"):
        if not (folder / BEST).is_file():
            raise ValueError(f"{folder / BEST}, the best of the epochs so far, is missing")
        read_checkpoint(folder / BEST)


def keep_best(folder: Path, output: Path) -> tuple[int, float]:
    """Drop a best model that cannot be read; copy it where a run goes on in another folder.

    Returns its epoch, which may be one that is to be run again, and its result on validation
    pictures; 0 and -infinity if there is none.
    """
    best = folder / BEST
    if not best.is_file():
        return 0, -float("inf")
    try:
        saved = read_checkpoint(best)
    except ValueError as error:
        logger.warning("%s; its epoch will be run again", error)
        (output / BEST).unlink(missing_ok=True)
        return 0, -float("inf")
    if folder.resolve() != output.resolve():
        output.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(best, output / BEST)
    result = saved.get("val_result")
    return int(saved["epoch"]), -float("inf") if result is None else float(result)


def restore(cfg: CfgNode, state: RunState, saved: dict[str, Any], path: Path) -> None:
    """Put a run where it was; ValueError, and nothing changed, if something saved does not fit it.

    Settings of the optimiser and the schedule are the config's, which may differ on purpose.
    """
    optimiser, may_differ = state.optimiser, cfg.MODEL.ALLOW_MISMATCH
    moments = optimiser and moments_of(optimiser, saved, path, new_buffers=may_differ)
    average, scaler = state.average, state.precision.scaler
    scale, states = scale_of(scaler, saved, path), random_states_of(saved, path)
    if average is not None:
        require_fit(average.sums, saved.get("average") or {}, f"{path}, average")
    checkpoint.load_into(state.learned, saved, path)
    if optimiser is not None:
        optimiser.load_state_dict(optimiser.state_dict() | {"state": moments})
        go_on(state.scheduler, saved["epoch"])
    if average is not None:
        average.load_state_dict(saved["average"], saved["epoch"])
    scaler.load_state_dict(scale)
    if states is not None:
        state.workers.states = states[1]
        rng.restore(states[0])


def go_on(schedule: Any, epochs: int) -> None:
    """Put a schedule where it is after some epochs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step")
        for _ in range(epochs):
            schedule.step()


def moments_of(
    optimiser: Optimizer, saved: dict[str, Any], path: Path, *, new_buffers: bool
) -> dict[int, Any]:
    """The optimiser's state of each parameter in a checkpoint, as this run would save it."""
    needed = moments_after_a_step(optimiser)
    found = {}
    for place, known in (saved.get("optimizer") or {}).get("state", {}).items():
        own = needed.get(place, {})
        # empty buffers, where the momentum was 0
        new = {k: v for k, v in own.items() if k == BUFFER and new_buffers}
        known = {k: v for k, v in known.items() if v is not None and k in own}
        found[place] = new | known
        require_fit(own, found[place], f"{path}, optimizer, parameter {place}")
    number = sum(len(group["params"]) for group in optimiser.param_groups)
    lost = needed and not found and not saved.get("scaler")  # a scaler may skip all steps
    if lost or not set(found) <= set(range(number)):
        raise ValueError(f"{path}, optimizer, is not of the {number} parameters of this run")
    return found


def moments_after_a_step(optimiser: Optimizer) -> dict[int, dict[str, Any]]:
    """The state that an optimiser of these settings has after a step; its own stays as it is."""
    groups = [
        {**group, "params": [torch.zeros_like(p).requires_grad_() for p in group["params"]]}
        for group in optimiser.param_groups
    ]
    for parameter in chain.from_iterable(group["params"] for group in groups):
        parameter.grad = torch.zeros_like(parameter)
    kind: Any = type(optimiser)
    twin = kind(groups)
    twin.step()
    return dict(twin.state_dict()["state"])


def require_fit(own: dict[str, Any], there: dict[str, Any], what: str) -> None:
    """Refuse tensors of other names, shapes or kinds, and those that are not finite."""
    there = {name: there[name] for name in own if name in there}
    if wrong := [*misfits(own, there, own), *not_finite(there)]:
        raise ValueError(f"{what}, is of another form than this run's: {'; '.join(wrong)}")


def scale_of(scaler: Any, saved: dict[str, Any], path: Path) -> dict[str, Any]:
    """The checkpoint's scale of the loss and counter; the rest of the scaler is the run's."""
    own, there = scaler.state_dict(), saved.get("scaler") or {}
    state = own | {k: v for k, v in there.items() if k in COUNTERS and k in own}
    if any(type(v) is not type(own[k]) or not 0 <= v < float("inf") for k, v in state.items()):
        raise ValueError(f"{path}, scaler, is of another form than this run's")
    return dict(state)


def random_states_of(saved: dict[str, Any], path: Path) -> tuple[str, dict[int, str]] | None:
    """The random states of this process and of its workers; None if a run has other processes."""
    states, workers = saved.get("random", []), saved.get("workers", [])
    if len(states) != parallel.processes():
        logger.warning(
            "%s holds random states of %d processes, and this run has %d: its last digits will "
            "differ from those of a run that was not interrupted",
            *(path, len(states), parallel.processes()),
        )
        return None
    try:
        found = states[parallel.rank()], dict(workers[parallel.rank()])
        for state in (found[0], *found[1].values()):
            rng.require_whole(state)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} holds random states that cannot be restored") from error
    return found
