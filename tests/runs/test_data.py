"""Pictures on their way to the model: kept in memory, decoded ahead."""

import threading
import time

import pytest
import torch
from dassl.data.datasets import build_dataset

import train
from runs.config import build_config
from runs.data import CachedDataset, prefetch
from tests.trainers.test_runs import checkpoint, results

SIZE = 64 * 64 * 3 / 2**20  # megabytes of a toy picture


def training_pictures(arguments, megabytes):
    cfg = build_config(train.parse_args(arguments("CoOp")))
    cfg.defrost()
    cfg.DATALOADER.CACHE_MB = megabytes
    return CachedDataset(cfg, build_dataset(cfg).train_x, transform=None, is_train=True)


@pytest.mark.parametrize(("megabytes", "kept"), [(0, 0), (5 * SIZE, 5), (1, 24)])
def test_pictures_are_kept_as_far_as_they_fit(arguments, megabytes, kept):
    pictures = training_pictures(arguments, megabytes)
    before = [pictures[i]["img"].tobytes() for i in range(len(pictures))]
    pictures.keep()
    assert len(pictures.kept) == kept
    assert [pictures[i]["img"].tobytes() for i in range(len(pictures))] == before


def test_kept_pictures_train_to_the_same_bits(run, tmp_path):
    for name, megabytes in (("kept", 64), ("read", 0)):
        run("CoOp", name, DATALOADER__CACHE_MB=megabytes)
    kept, read = (checkpoint(tmp_path / name)["state_dict"] for name in ("kept", "read"))
    assert torch.equal(kept["ctx"], read["ctx"])


def test_prefetch_keeps_the_order():
    assert list(prefetch(range(20))) == list(range(20))


def test_prefetch_works_while_the_consumer_does():
    made = []

    def batches():
        for i in range(5):
            made.append(i)
            yield i

    found = prefetch(batches(), depth=2)
    assert next(found) == 0
    deadline = time.monotonic() + 5
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made == [0, 1, 2]  # two wait
    assert list(found) == [1, 2, 3, 4]


def test_prefetch_passes_errors_on():
    def batches():
        yield 1
        raise OSError("unreadable")

    found = prefetch(batches())
    assert next(found) == 1
    with pytest.raises(OSError, match="unreadable"):
        next(found)


def test_prefetch_stops_when_nobody_listens():
    before = set(threading.enumerate())
    found = prefetch(iter(range(1000)))
    next(found)
    started = set(threading.enumerate()) - before
    assert len(started) == 1
    found.close()
    assert not started & set(threading.enumerate())


def test_a_compiled_tower_gives_the_same_accuracy(run, tmp_path):
    """The backend "eager" takes the tower apart as any backend does, without a C++ compiler."""
    for name, backend in (("plain", ""), ("compiled", "eager")):
        run("CoOp", name, OPTIM__MAX_EPOCH=1, MODEL__COMPILE=backend)
    assert results(tmp_path / "plain")["accuracy"] == results(tmp_path / "compiled")["accuracy"]
