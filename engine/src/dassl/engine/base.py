"""What every trainer has: registered models, their checkpoints, TensorBoard and the hooks."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from dassl.utils import check_availability, load_checkpoint, save_checkpoint
from dassl.utils.torchtools import BEST, POINTER, load_strictly, resume_from_checkpoint
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["TrainerBase"]

logger = logging.getLogger(__name__)

Names = str | Sequence[str] | None  # of registered models; None: all


class TrainerBase:
    """Registered models and the order of the hooks, without data."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, Optimizer | None] = OrderedDict()
        self._scheds: OrderedDict[str, LRScheduler | None] = OrderedDict()
        self._writer: Any = None
        self.start_epoch = self.epoch = 0
        self.max_epoch = 0

    # Registered models

    def register_model(
        self, name: str = "model", model: nn.Module | None = None,
        optim: Optimizer | None = None, sched: LRScheduler | None = None,
    ) -> None:
        """Register a model, so that its mode, steps and checkpoints follow the training.

        Its checkpoint folder has its name. Without an optimiser it is not trained. Raises
        ValueError if the name is taken or there is no model; AttributeError if
        ``super().__init__()`` has not run.
        """
        if "_models" not in self.__dict__:
            raise AttributeError("Call super().__init__() before register_model")
        if name in self._models or model is None:
            state = "already registered" if name in self._models else "None"
            raise ValueError(f"register_model({name!r}) needs a new model, but it is {state}")
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names: Names = None) -> list[str]:
        """Return the names of the registered models, or check those given.

        Raises ValueError if a name is not registered.
        """
        if names is None:
            return list(self._models)
        chosen = [names] if isinstance(names, str) else list(names)
        for name in chosen:
            check_availability(name, self._models, "model")
        return chosen

    def set_model_mode(self, mode: str = "train", names: Names = None) -> None:
        """Set models to ``train`` or to evaluation (``eval`` or ``test``)."""
        check_availability(mode, ("train", "eval", "test"), "mode")
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    # Steps

    def _optimisers(self, names: Names) -> list[Optimizer]:
        found = (self._optims[name] for name in self.get_model_names(names))
        return [optim for optim in found if optim is not None]

    def model_zero_grad(self, names: Names = None) -> None:
        """Clear the gradients."""
        for optim in self._optimisers(names):
            optim.zero_grad()

    def detect_anomaly(self, loss: torch.Tensor) -> None:
        """Refuse a loss that is infinite or not a number with a FloatingPointError."""
        if not torch.isfinite(loss).all():
            raise FloatingPointError("Loss is infinite or NaN!")

    def model_backward(self, loss: torch.Tensor) -> None:
        """Compute the gradients of a finite loss."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: Names = None) -> None:
        """Step the optimisers."""
        for optim in self._optimisers(names):
            optim.step()

    def model_backward_and_update(self, loss: torch.Tensor, names: Names = None) -> None:
        """Clear the gradients, compute new ones and step the optimisers."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def update_lr(self, names: Names = None) -> None:
        """Step the schedules."""
        for name in self.get_model_names(names):
            if (sched := self._scheds[name]) is not None:
                sched.step()

    def get_current_lr(self, names: Names = None) -> float:
        """Return the learning rate of the first parameter group of the first trained model."""
        return next((float(o.param_groups[0]["lr"]) for o in self._optimisers(names)), 0.0)

    # Checkpoints

    def save_model(
        self, epoch: int, directory: str | Path, is_best: bool = False,
        val_result: float | None = None, model_name: str = "",
    ) -> None:
        """Write ``<directory>/<name>/model.pth.tar-<epoch + 1>`` for each registered model.

        ``epoch`` is the index of the epoch that has just been done. ``is_best`` writes
        ``model-best.pth.tar`` as well; ``model_name`` is a file name instead of the usual one.
        """
        for name, model in self._models.items():
            optim, sched = self._optims[name], self._scheds[name]
            state = {
                "state_dict": model.state_dict(),
                "epoch": epoch + 1,
                "optimizer": None if optim is None else optim.state_dict(),
                "scheduler": None if sched is None else sched.state_dict(),
                "val_result": val_result,
            }
            folder = Path(directory) / name
            save_checkpoint(state, folder, is_best=is_best, model_name=model_name)

    def resume_model_if_exist(self, directory: str | Path) -> int:
        """Restore every model with its optimiser and schedule, if all of them have a checkpoint.

        Return the number of epochs done; 0 if there is nothing to resume from.
        """
        folders = {name: Path(directory) / name for name in self._models}
        if not folders or not all((folder / POINTER).is_file() for folder in folders.values()):
            logger.info("No checkpoint found, train from scratch")
            return 0
        logger.info("Found checkpoint at %s (will resume training)", directory)
        epoch = 0
        for name, folder in folders.items():
            parts = self._models[name], self._optims[name], self._scheds[name]
            epoch = resume_from_checkpoint(folder, *parts)
        return epoch

    def load_model(self, directory: str | Path, epoch: int | None = None) -> None:
        """Load every registered model from ``model.pth.tar-<epoch>``, or ``model-best.pth.tar``.

        Raises FileNotFoundError if a model has no such checkpoint; ValueError if a checkpoint does
        not fit.
        """
        if not directory:
            logger.info("load_model() is skipped, as no pretrained model is given")
            return
        file_name = BEST if epoch is None else f"model.pth.tar-{epoch}"
        for name, model in self._models.items():
            fpath = Path(directory) / name / file_name
            if not fpath.is_file():
                found = sorted(path.name for path in fpath.parent.glob("model*"))
                raise FileNotFoundError(f'No model at "{fpath}"; its folder has {found}')
            checkpoint = load_checkpoint(fpath)
            load_strictly(model, checkpoint["state_dict"], fpath)
            result = checkpoint.get("val_result")
            shown = "none" if result is None else f"{result:.1f}"
            done = checkpoint.get("epoch")
            logger.info("Load %s to %s (epoch=%s, val_result=%s)", fpath, name, done, shown)

    # TensorBoard

    def init_writer(self, log_dir: str | Path) -> None:
        """Open TensorBoard's file; without the package, log that nothing is written."""
        if self._writer is not None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.info("No TensorBoard files are written: the package tensorboard is missing")
            return
        logger.info("Initialize tensorboard (log_dir=%s)", log_dir)
        self._writer = SummaryWriter(log_dir=str(log_dir))

    def close_writer(self) -> None:
        """Close TensorBoard's file."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with suppress(OSError):  # a full disk; the results do not depend on this file
                writer.close()

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Write a number to TensorBoard, if it is open."""
        if self._writer is None:
            return
        try:
            self._writer.add_scalar(tag, scalar_value, global_step)
        except OSError as error:
            logger.warning("TensorBoard's file is no longer written: %s", error)
            self.close_writer()

    # Hooks, in their order

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Train epochs start_epoch to max_epoch - 1; ``before_train`` may change the first."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.before_train()
        epochs = range(self.start_epoch, self.max_epoch)
        for self.epoch in epochs:
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def before_train(self) -> None:
        """Prepare the training."""

    def before_epoch(self) -> None:
        """Prepare an epoch."""

    def run_epoch(self) -> None:
        """Train on all batches."""
        raise NotImplementedError

    def after_epoch(self) -> None:
        """Finish an epoch."""

    def after_train(self) -> None:
        """Finish the training."""
