"""One run over several processes, a GPU each: torchrun and DistributedDataParallel.

    torchrun --standalone --nproc-per-node 2 train.py ...

W processes with batches of B are one process with batches of W * B, to rounding: the order of the
pictures is drawn once and dealt out, gradients are averaged, and what a memory is written from is
gathered before it is written. Without torchrun nothing here changes anything.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from dassl.utils import set_random_seed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from models.classifier import Step

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer


PATIENCE = timedelta(hours=12)  # for the process that evaluates

T = TypeVar("T")


class SaidByMainError(ValueError):
    """What went wrong in the first process, which says it."""

    said_by_main = True


def processes() -> int:
    """W, processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0; as torchrun says it, before they have met, too."""
    return int(os.environ.get("RANK", 0))


def is_main() -> bool:
    """Whether this process writes files and speaks."""
    return rank() == 0


@contextmanager
def process_group(use_cuda: bool) -> Iterator[None]:
    """Meet the other processes that torchrun has started, if it has.

    Raises:
        ValueError: there are fewer GPUs than processes on this machine.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    cuda = use_cuda and torch.cuda.is_available()
    if cuda:
        place, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= gpus:
            raise ValueError(
                f"torchrun started process {place + 1} on a machine of {gpus} GPUs; lower "
                "--nproc-per-node, or compute on the CPU (USE_CUDA False)"
            )
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def main_first() -> Iterator[None]:
    """Let one process through before the others, as where files are made that all read.

    Raises:
        SaidByMainError: in the others, what went wrong in the first.
    """
    if not is_main():
        _share(None, None)
        yield
        return
    try:
        yield
    except Exception as error:
        _share(None, error)
        raise
    _share(None, None)


def on_main(work: Callable[[], T]) -> T:
    """Do something in one process; the others wait, and get its result.

    Raises:
        SaidByMainError: in the others, what went wrong there.
    """
    if not is_main():
        return _share(None, None)
    try:
        found = work()
    except Exception as error:
        _share(None, error)
        raise
    return _share(found, None)


def _share(found: Any, error: Exception | None) -> Any:
    """What the first process found; its error, in the others."""
    if processes() == 1:
        return found
    shared = [found, error and str(error)]
    dist.broadcast_object_list(shared)
    if shared[1] is not None and not is_main():
        raise SaidByMainError(shared[1])
    return shared[0]


@contextmanager
def in_main(context: AbstractContextManager[Any]) -> Iterator[None]:
    """Enter a context in one process; the others go on once it has.

    Raises:
        SaidByMainError: in the others, what went wrong there.
    """
    with ExitStack() as stack:
        on_main(lambda: stack.enter_context(context) and None)
        yield


def everyones(value: T) -> list[T]:
    """What each process brings, in their order; it must be picklable."""
    found: list[Any] = [value] * processes()
    if len(found) > 1:
        dist.all_gather_object(found, value)
    return found


logger = logging.getLogger(__name__)

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class Share(Sampler[int]):
    """Every W-th picture of an order that one process draws; the same number for each process.

    Args:
        order: a sampler that knows its length.
    """

    def __init__(self, order: Any) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order) // processes()

    def __iter__(self) -> Iterator[int]:
        order = on_main(lambda: list(self.order))
        return iter(order[rank() :: processes()][: len(self)])


def deal_out(loader: Any) -> None:
    """Give a training loader this process's share of the pictures.

    TRAIN_X.BATCH_SIZE stays the batch of each process.
    """
    if processes() > 1:
        batches = loader.batch_sampler
        batches.sampler = Share(loader.sampler)
        batches.drop_last = len(batches.sampler) >= batches.batch_size


def draw_apart(trainer: CLIPTrainer) -> None:
    """Seed the other processes of a new run differently, that augmentations differ."""
    seed = trainer.cfg.SEED
    if rank() and seed >= 0 and trainer.start_epoch == 0:
        set_random_seed(seed + rank())


class _Stepping(nn.Module):
    """A model whose forward pass is its training step, as DistributedDataParallel wants it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, label: Tensor) -> Step:
        return self.model.step(image, label)


def stepper(model: nn.Module) -> Callable[[Tensor, Tensor], Step]:
    """The model's training step; its gradients become the mean over processes.

    The processes begin with the weights of the first.
    """
    if processes() == 1:
        return model.step
    if any(isinstance(part, NORMS) for part in model.learned.modules()):
        if next(model.learned.parameters()).is_cuda:
            nn.SyncBatchNorm.convert_sync_batchnorm(model.learned)
        else:
            logger.warning("Batch norm sees the pictures of one process only on a CPU")
    return DistributedDataParallel(
        _Stepping(model), broadcast_buffers=False, find_unused_parameters=True
    )


def gathered(step: Step) -> Step:
    """A step with the evidence and the labels of all processes: what `remember` reads."""
    if processes() == 1:
        return step
    target = step.target._replace(label=_everyones(step.target.label))
    return step._replace(memory_inputs=tuple(map(_everyones, step.memory_inputs)), target=target)


def _everyones(x: Tensor) -> Tensor:
    """(B, ...) of each process -> (W * B, ...)."""
    found = [torch.empty_like(x) for _ in range(processes())]
    dist.all_gather(found, x.contiguous())
    return torch.cat(found)


def agree(module: nn.Module) -> None:
    """Take over parameters and buffers of the first process, lest rounding adds up."""
    if processes() > 1:
        for value in (*module.parameters(), *module.buffers()):
            dist.broadcast(value.detach(), 0)
