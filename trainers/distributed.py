"""The processes that torchrun started: they meet, one speaks, what one finds all know.

Without torchrun every function here does its work alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

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
