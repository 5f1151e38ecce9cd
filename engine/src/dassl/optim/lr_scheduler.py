"""Learning rate by epoch: step, multi-step or cosine, after a warm-up if one is asked for.

Differs from upstream in: ``state_dict`` is plain data, where upstream pickles the successor object.
"""

from typing import Any

from dassl.utils import check_availability
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR
from yacs.config import CfgNode

__all__ = ["ConstantWarmupScheduler", "LinearWarmupScheduler", "build_lr_scheduler"]

AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]
WARMUPS = ("constant", "linear")


class _WarmupScheduler(LRScheduler):
    """Set the learning rate for ``warmup_epoch`` epochs, then leave it to the successor.

    Both schedulers have the same optimiser.
    """

    def __init__(
        self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, last_epoch: int = -1
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
        """Take over a state; a ValueError if it is that of a schedule without warm-up."""
        if "successor" not in state_dict:
            raise ValueError(
                "The checkpoint's schedule has no warm-up, the config's has one; "
                "set OPTIM.WARMUP_EPOCH as it was in training"
            )
        state = dict(state_dict)
        self.successor.load_state_dict(state.pop("successor"))
        self.__dict__.update(state)


class ConstantWarmupScheduler(_WarmupScheduler):
    """Warm up at one learning rate, ``cons_lr``."""

    def __init__(
        self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, cons_lr: float,
        last_epoch: int = -1,
    ) -> None:
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self) -> list[Any]:
        """Return ``cons_lr`` for each group."""
        return [self.cons_lr for _ in self.base_lrs]


class LinearWarmupScheduler(_WarmupScheduler):
    """Warm up at ``min_lr`` in the first epoch, then at LR x epoch / ``warmup_epoch``."""

    def __init__(
        self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, min_lr: float,
        last_epoch: int = -1,
    ) -> None:
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self) -> list[Any]:
        """Return the fraction of the full learning rate for the current epoch."""
        if self.last_epoch == 0:
            return [self.min_lr for _ in self.base_lrs]
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]


def _successor(optimizer: Optimizer, cfg: CfgNode) -> LRScheduler:
    stepsize = cfg.STEPSIZE
    if cfg.LR_SCHEDULER == "cosine":
        return CosineAnnealingLR(optimizer, T_max=cfg.MAX_EPOCH)
    several, name = isinstance(stepsize, (list, tuple)), f"OPTIM.STEPSIZE of {cfg.LR_SCHEDULER}"
    if cfg.LR_SCHEDULER == "multi_step":
        if not several:
            raise TypeError(f"{name} must be a list of epochs, got {stepsize!r}")
        return MultiStepLR(optimizer, milestones=list(stepsize), gamma=cfg.GAMMA)
    stepsize = stepsize[-1] if several else stepsize
    if not isinstance(stepsize, int):
        raise TypeError(f"{name} must be a whole number of epochs, got {stepsize!r}")
    return StepLR(optimizer, step_size=stepsize if stepsize > 0 else cfg.MAX_EPOCH, gamma=cfg.GAMMA)


def build_lr_scheduler(optimizer: Optimizer, optim_cfg: CfgNode) -> LRScheduler:
    """Build the schedule that ``optim_cfg.LR_SCHEDULER`` names, with its warm-up.

    With WARMUP_RECOUNT the schedule counts its epochs from the end of the warm-up and so never
    reaches its last ones. Without, it counts from the start, though its first value is still LR.
    Raises ValueError if a name is unknown; TypeError if STEPSIZE does not suit the schedule.
    """
    check_availability(optim_cfg.LR_SCHEDULER, AVAI_SCHEDS, "schedule (OPTIM.LR_SCHEDULER)")
    scheduler, warmup = _successor(optimizer, optim_cfg), optim_cfg.WARMUP_EPOCH
    if warmup <= 0:
        return scheduler
    check_availability(optim_cfg.WARMUP_TYPE, WARMUPS, "warm-up (OPTIM.WARMUP_TYPE)")
    if not optim_cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = warmup
    if optim_cfg.WARMUP_TYPE == "constant":
        return ConstantWarmupScheduler(optimizer, scheduler, warmup, optim_cfg.WARMUP_CONS_LR)
    return LinearWarmupScheduler(optimizer, scheduler, warmup, optim_cfg.WARMUP_MIN_LR)
