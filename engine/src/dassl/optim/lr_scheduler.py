"""Learning rate by epoch: step, multi-step or cosine, after a warm-up if one is asked for.

Differs from upstream in: ``state_dict`` is plain data, where upstream pickles the successor object.
"""

from __future__ import annotations

from typing import Any

from dassl.utils import check_availability
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR
from yacs.config import CfgNode

__all__ = [
    "AVAI_SCHEDS",
    "ConstantWarmupScheduler",
    "LinearWarmupScheduler",
    "build_lr_scheduler",
]

AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]
WARMUPS = ("constant", "linear")


class _BaseWarmupScheduler(LRScheduler):
    """Set the learning rate for some epochs, then leave it to another scheduler.

    Args:
        optimizer: The optimiser, with its full learning rate.
        successor: Scheduler of the same optimiser that takes over.
        warmup_epoch: Length of the warm-up in epochs.
        last_epoch: Index of the last epoch; -1 at the start.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        last_epoch: int = -1,
    ) -> None:
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer, last_epoch)

    def warmup_lr(self) -> list[Any]:
        """Return the learning rates of the current epoch of the warm-up, one per group."""
        raise NotImplementedError

    def get_lr(self) -> list[Any]:
        """Return the learning rates of the current epoch, one per group."""
        if self.last_epoch >= self.warmup_epoch:
            return self.successor.get_last_lr()
        return self.warmup_lr()

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next epoch."""
        if self.last_epoch >= self.warmup_epoch:
            self.successor.step()
            self._last_lr = self.successor.get_last_lr()
        else:
            super().step(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return numbers, lists and dictionaries only, the successor's state among them."""
        state = {k: v for k, v in self.__dict__.items() if k not in ("optimizer", "successor")}
        return {**state, "successor": self.successor.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state written by ``state_dict``.

        Raises:
            ValueError: If it is the state of a schedule without warm-up.
        """
        if "successor" not in state_dict:
            raise ValueError(
                "The checkpoint's schedule has no warm-up, the config's has one; "
                "set OPTIM.WARMUP_EPOCH as it was in training"
            )
        state = dict(state_dict)
        self.successor.load_state_dict(state.pop("successor"))
        self.__dict__.update(state)


class ConstantWarmupScheduler(_BaseWarmupScheduler):
    """Warm up at one small learning rate.

    Args:
        optimizer: The optimiser, with its full learning rate.
        successor: Scheduler of the same optimiser that takes over.
        warmup_epoch: Length of the warm-up in epochs.
        cons_lr: Learning rate during the warm-up.
        last_epoch: Index of the last epoch; -1 at the start.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        cons_lr: float,
        last_epoch: int = -1,
    ) -> None:
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self) -> list[Any]:
        """Return the constant for each group."""
        return [self.cons_lr for _ in self.base_lrs]


class LinearWarmupScheduler(_BaseWarmupScheduler):
    """Warm up from a small learning rate, then along LR x epoch / length.

    Args:
        optimizer: The optimiser, with its full learning rate.
        successor: Scheduler of the same optimiser that takes over.
        warmup_epoch: Length of the warm-up in epochs.
        min_lr: Learning rate of the first epoch.
        last_epoch: Index of the last epoch; -1 at the start.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        min_lr: float,
        last_epoch: int = -1,
    ) -> None:
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self) -> list[Any]:
        """Return the share of the full learning rate that the current epoch has reached."""
        if self.last_epoch == 0:
            return [self.min_lr for _ in self.base_lrs]
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]


def _step_scheduler(optimizer: Optimizer, cfg: CfgNode) -> StepLR:
    stepsize = cfg.STEPSIZE[-1] if isinstance(cfg.STEPSIZE, (list, tuple)) else cfg.STEPSIZE
    if not isinstance(stepsize, int):
        raise TypeError(
            f"OPTIM.STEPSIZE of single_step must be a whole number of epochs, got {stepsize!r}"
        )
    return StepLR(optimizer, step_size=stepsize if stepsize > 0 else cfg.MAX_EPOCH, gamma=cfg.GAMMA)


def _multi_step_scheduler(optimizer: Optimizer, cfg: CfgNode) -> MultiStepLR:
    if not isinstance(cfg.STEPSIZE, (list, tuple)):
        raise TypeError(
            f"OPTIM.STEPSIZE of multi_step must be a list of epochs, got {cfg.STEPSIZE!r}"
        )
    return MultiStepLR(optimizer, milestones=list(cfg.STEPSIZE), gamma=cfg.GAMMA)


def build_lr_scheduler(optimizer: Optimizer, optim_cfg: CfgNode) -> LRScheduler:
    """Build the schedule that ``optim_cfg.LR_SCHEDULER`` names, with its warm-up.

    With WARMUP_RECOUNT the schedule counts its epochs from the end of the warm-up and so never
    reaches its last ones; without, it counts from the start, though its first value is still LR.

    Args:
        optimizer: The optimiser, with its full learning rate.
        optim_cfg: The node ``cfg.OPTIM``.

    Raises:
        ValueError: If a name is unknown.
        TypeError: If STEPSIZE does not suit the schedule.
    """
    check_availability(optim_cfg.LR_SCHEDULER, AVAI_SCHEDS, "schedule (OPTIM.LR_SCHEDULER)")
    scheduler: LRScheduler
    if optim_cfg.LR_SCHEDULER == "single_step":
        scheduler = _step_scheduler(optimizer, optim_cfg)
    elif optim_cfg.LR_SCHEDULER == "multi_step":
        scheduler = _multi_step_scheduler(optimizer, optim_cfg)
    else:
        scheduler = CosineAnnealingLR(optimizer, T_max=optim_cfg.MAX_EPOCH)
    if optim_cfg.WARMUP_EPOCH <= 0:
        return scheduler
    check_availability(optim_cfg.WARMUP_TYPE, WARMUPS, "warm-up (OPTIM.WARMUP_TYPE)")
    if not optim_cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = optim_cfg.WARMUP_EPOCH
    if optim_cfg.WARMUP_TYPE == "constant":
        return ConstantWarmupScheduler(
            optimizer, scheduler, optim_cfg.WARMUP_EPOCH, optim_cfg.WARMUP_CONS_LR
        )
    return LinearWarmupScheduler(
        optimizer, scheduler, optim_cfg.WARMUP_EPOCH, optim_cfg.WARMUP_MIN_LR
    )
