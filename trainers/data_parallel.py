"""One run over several processes, a GPU each: torchrun and DistributedDataParallel.

    torchrun --standalone --nproc-per-node 2 train.py ...

W processes with batches of B are one process with batches of W * B, to rounding: the order of the
pictures is drawn once and dealt out, gradients are averaged, and what a memory is written from is
gathered before it is written. Without torchrun nothing here changes anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from dassl.utils import set_random_seed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from models.classifier import Step
from trainers.distributed import on_main, processes, rank

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer

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
    return step._replace(evidence=tuple(map(_everyones, step.evidence)), target=target)


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
