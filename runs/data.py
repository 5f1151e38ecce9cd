"""Pictures for the model: cached, checked, prefetched; and the pruner that is fitted to them."""

import logging
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, compress
from typing import Any

from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.transforms import build_transform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from yacs.config import CfgNode

from datasets.pictures import TURNED, open_picture
from models.classifier import CLIPClassifier
from models.clip.image_tower import require_vit
from models.clip.prune import LinearDiscriminant, TokenPruner
from runs.state import RunState

logger = logging.getLogger(__name__)


def warn_of_workers(cfg: CfgNode) -> None:
    """Say once where there are more workers than cores; torch says it for each loader."""
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
    able = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(able(0)) if able else os.cpu_count() or 1
    if cores < cfg.DATALOADER.NUM_WORKERS:
        logger.warning(
            "%d workers read pictures on a machine of %d cores and wait for one another; "
            "DATALOADER.NUM_WORKERS %d is enough",
            *(cfg.DATALOADER.NUM_WORKERS, cores, cores),
        )


def upright(cfg: CfgNode) -> bool:
    """Whether the pictures of the config's data set are turned as their EXIF data say."""
    if cfg.INPUT.EXIF != "auto" or not cfg.DATASET.NAME:
        return bool(cfg.INPUT.EXIF == "upright")
    return getattr(DATASET_REGISTRY.get(cfg.DATASET.NAME), "upright", False)


def has_own_val(dataset: Any) -> bool:
    """Whether there are validation pictures, and none of them is a test picture."""
    test = {item.impath for item in dataset.test or ()}
    return bool(dataset.val) and not any(item.impath in test for item in dataset.val)


def final_model(cfg: CfgNode, dataset: Any) -> str:
    """TEST.FINAL_MODEL, but last_step if best_val had no pictures apart from the test's."""
    if cfg.TEST.FINAL_MODEL != "best_val" or has_own_val(dataset):
        return str(cfg.TEST.FINAL_MODEL)
    lack = "no validation split apart from its test pictures"
    instead = "the last epoch is reported instead of the best"
    logger.warning("%s has %s: %s", cfg.DATASET.NAME, lack, instead)
    return "last_step"


class CachedDataset(Dataset[dict[str, Any]]):
    """Pictures of which DATALOADER.CACHE_MB hold as many as fit, 8 bits a channel.

    An item has label, domain, impath, index and the transformed picture, img. A picture that
    cannot be read is blank, and its item has the reason under `unreadable`. In training, with
    DATALOADER.SKIP_UNREADABLE, the next readable one replaces it, so batches keep their size.
    """

    def __init__(
        self, cfg: CfgNode, data_source: Any, transform: Any = None, is_train: bool = False
    ) -> None:
        self.cfg, self.data_source = cfg, data_source
        self.transform, self.is_train = transform, is_train
        self.kept: dict[int, Any] = {}
        self.unreadable: dict[int, str] = {}  # what is wrong, by index
        self.turned: set[int] = set()  # those whose EXIF data call for a turn
        self.upright = upright(cfg)

    def __len__(self) -> int:
        return len(self.data_source)

    def keep(self) -> None:
        """Decode pictures in order, as many as fit; workers that are forked later share them."""
        left, threads = self.cfg.DATALOADER.CACHE_MB * 2**20, self.cfg.DATALOADER.NUM_WORKERS
        if left <= 0 or self.kept:
            return
        step, size = 8 * max(1, threads), len(self)
        chunks = (range(first, min(first + step, size)) for first in range(0, size, step))
        with ThreadPoolExecutor(max(1, threads)) as pool:
            pictures = chain.from_iterable(pool.map(self.read, chunk) for chunk in chunks)
            for index, picture in enumerate(pictures):
                left -= picture.width * picture.height * 3
                if left < 0:
                    break
                self.kept[index] = picture
        logger.info("Keeping %d of %d training pictures in memory", len(self.kept), len(self))

    def read(self, idx: int) -> Any:
        """The picture; a blank one if it cannot be read."""
        if idx in self.kept:
            return self.kept[idx]
        try:
            picture = open_picture(self.data_source[idx].impath, self.upright)
        except (OSError, ValueError) as error:
            self.unreadable[idx] = str(error)
            return Image.new("RGB", self.cfg.INPUT.SIZE[::-1])
        if picture.info[TURNED]:
            self.turned.add(idx)
        return picture

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """The item, with `unreadable` (a sentence, or empty), `blank` and `turned`."""
        item = self._item(idx)
        fault = self.unreadable.get(idx, "")
        marks = {"unreadable": fault, "blank": bool(fault), "turned": idx in self.turned}
        if fault and self.is_train and self.cfg.DATALOADER.SKIP_UNREADABLE:
            for step in range(1, len(self)):
                other = (idx + step) % len(self)
                item = self._item(other)
                if other not in self.unreadable:
                    return item | marks | {"blank": False}
        return item | marks

    def _item(self, idx: int) -> dict[str, Any]:
        datum, picture = self.data_source[idx], self.read(idx)
        shown = picture if self.transform is None else self.transform(picture)
        known = {"label": datum.label, "domain": datum.domain, "impath": datum.impath}
        return known | {"index": idx, "img": shown}


def readable(cfg: CfgNode, state: RunState, batch: dict[str, Any], split: str) -> dict[str, Any]:
    """The batch without blank pictures; without SKIP_UNREADABLE they are a ValueError."""
    if "turned" in batch:
        turned = batch["index"][batch["turned"]].tolist()
        state.turned.setdefault(split, set()).update(turned)
    faults = set(filter(None, batch.get("unreadable", ())))
    if not faults:
        return batch
    known = state.unreadable.setdefault(split, set())
    if not cfg.DATALOADER.SKIP_UNREADABLE:
        raise ValueError(
            f"{cfg.DATASET.NAME}, {split}: {min(faults)}. tools/check_data.py lists all such "
            "pictures; DATALOADER.SKIP_UNREADABLE True goes on without them."
        )
    for fault in sorted(faults - known):
        logger.warning("Skipped in %s: %s", split, fault)
    known |= faults
    good = ~batch["blank"]
    if good.all():
        return batch
    paths = list(compress(batch["impath"], good.tolist()))
    return batch | {key: batch[key][good] for key in ("img", "label")} | {"impath": paths}


def none_readable(cfg: CfgNode, split: str) -> ValueError:
    """The error where all pictures of a split are skipped."""
    return ValueError(
        f"{cfg.DATASET.NAME}, {split}: no picture can be read; do they lie in DATASET.ROOT "
        f"{cfg.DATASET.ROOT}? tools/check_data.py says what is wrong with each"
    )


def to_device(batch: dict[str, Any], state: RunState) -> tuple[Tensor, Tensor]:
    """Images and labels of a batch on the run's device."""
    device = state.precision.device
    return batch["img"].to(device, non_blocking=True), batch["label"].to(device)


def training_batch(cfg: CfgNode, state: RunState, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Images and labels of a `readable` batch on the device; a ValueError if none is left."""
    batch = readable(cfg, state, batch, "train")
    if not len(batch["label"]):
        raise none_readable(cfg, "train")
    return to_device(batch, state)


def prefetch(batches: Iterable[Any], depth: int = 2) -> Iterator[Any]:
    """The same batches; a thread reads `depth` of them ahead, and must draw no random numbers."""
    iterator, done = iter(batches), object()
    with ThreadPoolExecutor(1) as pool:  # one thread: the order stays
        waiting = deque(pool.submit(next, iterator, done) for _ in range(depth))
        while (batch := waiting.popleft().result()) is not done:
            waiting.append(pool.submit(next, iterator, done))
            yield batch


def training_set(cfg: CfgNode, state: RunState, *, augmented: bool) -> CachedDataset:
    """The training pictures with the test's transforms, or the training's if `augmented`."""
    transform = build_transform(cfg, is_train=augmented)
    return CachedDataset(cfg, state.dataset.train_x, transform)


def training_pictures(
    cfg: CfgNode, state: RunState, *, augmented: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every training picture once, and its label, in order; in batches of the test's size.

    Transforms are the test's, or the training's if `augmented`. ValueError if none can be read.
    """
    pictures, found = training_set(cfg, state, augmented=augmented), 0
    for batch in DataLoader(pictures, cfg.DATALOADER.TEST.BATCH_SIZE):
        batch = readable(cfg, state, batch, "train")
        if len(batch["img"]):
            found += 1
            yield to_device(batch, state)
    if not found:
        raise none_readable(cfg, "train")


def prepare(model: CLIPClassifier, settings: CfgNode) -> CLIPClassifier:
    """Set up text chunks, pruning and compilation by the node MODEL; returns the model."""
    model.text.chunk, prune = settings.TEXT_CHUNK, settings.PRUNE
    if prune.AT or prune.KEEP:
        width = require_vit(model.visual.visual).conv1.out_channels
        at, keep = tuple(prune.AT), tuple(prune.KEEP)
        model.prune(TokenPruner(at=at, keep=keep, width=width, mix=prune.MIX))
    if settings.COMPILE:
        model.visual.compile(backend=settings.COMPILE)
    return model


def calibrate_pruner(cfg: CfgNode, state: RunState, model: nn.Module) -> None:
    """Fit an uncalibrated pruner to the training pictures, without their labels."""
    base: Any = model.tuner
    if base.pruner is None or base.pruner.calibrated:
        return
    model.eval()
    statistics = [LinearDiscriminant() for _ in base.pruner.at]
    for image, _ in training_pictures(cfg, state):
        base.collect_statistics(image, statistics)
    base.pruner.calibrate(statistics)
