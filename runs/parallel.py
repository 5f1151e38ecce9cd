"""torch.distributed helpers: one run over several processes, a GPU each.

    torchrun --standalone --nproc-per-node 2 train.py ...

W processes with batches of B equal one process with batches of W * B, to rounding: rank 0 draws the
order of the pictures for all, gradients are averaged, and what a memory is written from is
gathered. Without torchrun these functions change nothing.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from models.classifier import Step

logger = logging.getLogger(__name__)

PATIENCE = timedelta(hours=12)  # while rank 0 evaluates, the others wait
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

T = TypeVar("T")


class Rank0Error(ValueError):
    """An error of rank 0, raised in the other processes; rank 0 reports it."""

    reported_by_rank0 = True


def processes() -> int:
    """W, processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0; known before they are connected, too."""
    return int(os.environ.get("RANK", 0))


def is_rank0() -> bool:
    """Whether this process writes files and logs."""
    return rank() == 0


@contextmanager
def process_group(use_cuda: bool) -> Iterator[None]:
    """Connect to the other processes of torchrun; ValueError if there are fewer GPUs than those."""
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


def on_rank0(work: Callable[[], T]) -> T:
    """Call a function on rank 0; all processes get its result, or a Rank0Error."""
    found: Any = None
    if is_rank0():
        try:
            found = work()
        except Exception as error:
            _share(None, str(error))
            raise
    return _share(found)


def _share(found: Any, error: str | None = None) -> Any:
    """Send rank 0's result or error to the others."""
    if processes() == 1:
        return found
    shared = [found, error]
    dist.broadcast_object_list(shared)
    if shared[1] is not None and not is_rank0():
        raise Rank0Error(shared[1])
    return shared[0]


def rank0_first(work: Callable[[], T]) -> T:
    """Call a function on rank 0, then on the others, which raise Rank0Error if it failed there."""
    found: list[T] = []
    on_rank0(lambda: found.append(work()))
    return found[0] if found else work()


@contextmanager
def on_rank0_only(context: AbstractContextManager[Any]) -> Iterator[None]:
    """Enter a context on rank 0; the others go on once it has, or raise Rank0Error."""
    with ExitStack() as stack:
        on_rank0(lambda: stack.enter_context(context) and None)  # what it gives is not sent
        yield


def all_gather(value: T) -> list[T]:
    """The values of all processes, by rank; picklable."""
    found: list[Any] = [value] * processes()
    if len(found) > 1:
        dist.all_gather_object(found, value)
    return found


def averaged(values: Iterable[Tensor]) -> list[Tensor]:
    """Means over processes, as DistributedDataParallel makes them of gradients."""
    found = list(values)
    if processes() > 1:
        for value in found:
            dist.all_reduce(value)
            value /= processes()
    return found


def broadcast(module: nn.Module) -> None:
    """Copy parameters and buffers of rank 0 to the others, so that rounding does not add up."""
    if processes() > 1:
        for value in (*module.parameters(), *module.buffers()):
            dist.broadcast(value.detach(), 0)


class RankSampler(Sampler[int]):
    """Every W-th picture of an order that rank 0 draws; the same number for each process."""

    def __init__(self, order: Any) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order) // processes()

    def __iter__(self) -> Iterator[int]:
        order = on_rank0(lambda: list(self.order))
        return iter(order[rank() :: processes()][: len(self)])


def split_over_processes(loader: Any) -> None:
    """Give a training loader its share of the pictures; the batch of each process stays."""
    if processes() > 1:
        batches = loader.batch_sampler
        batches.sampler = RankSampler(loader.sampler)
        batches.drop_last = len(batches.sampler) >= batches.batch_size


class _Stepping(nn.Module):
    """A model whose forward pass is its training step, as DistributedDataParallel wants it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Any, label: Tensor) -> Step:
        return self.model.step(image, label)


def stepper(model: nn.Module) -> Callable[[Tensor, Tensor], Step]:
    """The training step, with gradients that are means over processes, and rank 0's weights."""
    if processes() == 1:
        return model.step
    if any(isinstance(part, NORMS) for part in model.learned.modules()):
        if next(model.learned.parameters()).is_cuda:
            nn.SyncBatchNorm.convert_sync_batchnorm(model.learned)
        else:
            logger.warning("On a CPU, batch norm uses the pictures of one process only")
    return DistributedDataParallel(
        _Stepping(model), broadcast_buffers=False, find_unused_parameters=True
    )


def gathered(step: Step) -> Step:
    """The step with the `memory_inputs` of all processes, for `update_memory`."""
    if processes() == 1:
        return step
    return step._replace(memory_inputs=tuple(map(_gather_rows, step.memory_inputs)))


def _gather_rows(x: Tensor) -> Tensor:
    """(B, ...) of each process -> (W * B, ...)."""
    found = [torch.empty_like(x) for _ in range(processes())]
    dist.all_gather(found, x.contiguous())
    return torch.cat(found)
