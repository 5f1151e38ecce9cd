"""States of the random generators: of this process, and of the workers that read pictures.

They are saved as text: short, and read without executing anything.
"""

import json
import random
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from dassl.utils import set_random_seed
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

KEY = "random_state_of_worker"  # in a batch: (number of the worker, its state behind this batch)


def capture() -> str:
    """States of Python's, NumPy's and torch's generators, those of the GPUs included."""
    version, words, gauss = random.getstate()
    name, keys, position, *normal = np.random.get_state()  # noqa: NPY002 - Dassl draws from it
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    state = {
        "python": [version, array("I", words).tobytes().hex(), gauss],
        "numpy": [str(name), np.asarray(keys).tobytes().hex(), int(position), *normal],
        "torch": bytes(torch.get_rng_state().numpy()).hex(),
        "cuda": [bytes(gpu.numpy()).hex() for gpu in gpus],
    }
    return json.dumps(state)


def restore(text: str) -> None:
    """Go on drawing where `capture` was called."""
    state = json.loads(text)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(array("I", bytes.fromhex(words))), gauss))
    name, keys, *rest = state["numpy"]
    numbers = np.frombuffer(bytes.fromhex(keys), np.uint32)
    np.random.set_state((name, numbers, *rest))  # noqa: NPY002
    torch.set_rng_state(_from_hex(state["torch"]))
    gpus = [_from_hex(gpu) for gpu in state["cuda"]]
    if torch.cuda.is_available() and len(gpus) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(gpus)


@contextmanager
def unchanged() -> Iterator[None]:
    """The random states afterwards are those before."""
    before = capture()
    try:
        yield
    finally:
        restore(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw as after a seed; the random states afterwards are those before."""
    with unchanged():
        set_random_seed(seed)
        yield


def require_whole(text: str) -> None:
    """Raise ValueError for states that `restore` could not restore; nothing is changed."""
    try:
        with unchanged():
            _, keys, position, *_ = json.loads(text)["numpy"]
            if not 0 <= position <= len(bytes.fromhex(keys)) // 4:  # NumPy itself does not look
                raise ValueError("a position behind the end")
            restore(text)
    except Exception as error:  # each generator says in its own way that a state is none
        raise ValueError("random states of another form") from error


def _from_hex(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


class WorkerStates:
    """The states of a loader's workers behind the last batch of each.

    A worker that persists draws on from epoch to epoch: a resumed run puts its own where it was.
    """

    def __init__(self) -> None:
        self.states: dict[int, str] = {}

    def watch(self, loader: DataLoader[Any]) -> None:
        """Have workers send their states, and begin where they were; before the first batch."""
        if loader.num_workers == 0:
            return
        loader.collate_fn = partial(collate_with_state, loader.collate_fn)
        if loader.persistent_workers and self.states:
            begin = partial(begin_where_it_was, dict(self.states), loader.worker_init_fn)
            loader.worker_init_fn = begin

    def note(self, batch: dict[str, Any]) -> None:
        """Take the state that came with a batch."""
        if KEY in batch:
            worker, state = batch.pop(KEY)
            self.states[worker] = state


def collate_with_state(collate: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    """Collate in a worker, and add its state."""
    batch, worker = collate(items), get_worker_info()
    if worker is not None:
        batch[KEY] = (worker.id, capture())
    return batch


def begin_where_it_was(
    states: dict[int, str], begin: Callable[[int], None] | None, worker: int
) -> None:
    """Begin a worker as usual, then restore its state."""
    if begin is not None:
        begin(worker)
    if worker in states:
        restore(states[worker])
