"""Which pictures a run trains on, which may choose its epoch, and how they get to the model."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import TYPE_CHECKING, Any

from dassl.data import DataManager, DatasetWrapper
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from dassl.data.transforms import build_transform
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from datasets.pictures import TURNED, open_picture
from models.classifier import CLIPClassifier
from models.clip.image_tower import require_vit
from models.clip.prune import LinearDiscriminant, TokenPruner

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer


logger = logging.getLogger(__name__)


def upright(cfg: CfgNode) -> bool:
    """Whether the pictures of the config's data set are turned as their EXIF data say."""
    if cfg.INPUT.EXIF != "auto" or not cfg.DATASET.NAME:
        return bool(cfg.INPUT.EXIF == "upright")
    return getattr(DATASET_REGISTRY.get(cfg.DATASET.NAME), "upright", False)


def changed(cfg: CfgNode, key: str, value: Any) -> CfgNode:
    """A frozen copy of a config in which one key differs."""
    other = cfg.clone()
    other.defrost()
    *nodes, last = key.split(".")
    reduce(getattr, nodes, other)[last] = value
    other.freeze()
    return other


def who_chooses_the_epoch(cfg: CfgNode, dataset: DatasetBase) -> tuple[CfgNode, str]:
    """The config to go on with, and what the result file says: best_val or last_step.

    Test pictures choose nothing: without a validation split of its own, best_val is last_step.
    """
    test = {item.impath for item in dataset.test or ()}
    own_val = dataset.val and not any(item.impath in test for item in dataset.val)
    if cfg.TEST.FINAL_MODEL == "best_val" and not own_val:
        logger.warning(
            "%s has no validation split apart from its test pictures: "
            "the last epoch is reported instead of the best",
            cfg.DATASET.NAME,
        )
        cfg = changed(cfg, "TEST.FINAL_MODEL", "last_step")
    return cfg, cfg.TEST.FINAL_MODEL


def loader_of_all_classes(cfg: CfgNode) -> Any:
    """Training pictures of every class of the data set, new ones included, for unlabelled use."""
    logger.warning("Training also sees pictures of new classes, without labels (transductive)")
    cfg = changed(cfg, "DATASET.SUBSAMPLE_CLASSES", "all")
    return DataManager(cfg, dataset_wrapper=KeptPictures).train_loader_x


class KeptPictures(DatasetWrapper):
    """Pictures that are decoded once and kept as they are, 8 bits a channel.

    `keep` is called before training, so worker processes that are forked later share the memory.
    Pictures that do not fit into DATALOADER.CACHE_MB are read each time; pixels are equal.

    Items have what trainers read: label, domain, impath, index and one transformed picture, img.

    A picture that cannot be read is blank, and its item says why under `unreadable`; so the news
    gets from a worker to the trainer, see `readable`. With DATALOADER.SKIP_UNREADABLE the next
    readable picture stands in for it in training, so that batches keep their size.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept: dict[int, Any] = {}
        self.unreadable: dict[int, str] = {}  # what is wrong, by index
        self.turned: set[int] = set()  # those whose EXIF data call for a turn
        self.upright = upright(self.cfg)

    def keep(self) -> None:
        """Decode pictures in order, as many as fit."""
        left, threads = self.cfg.DATALOADER.CACHE_MB * 2**20, self.cfg.DATALOADER.NUM_WORKERS
        if left <= 0 or self.kept:
            return
        step = 8 * max(1, threads)
        with ThreadPoolExecutor(max(1, threads)) as pool:
            for first in range(0, len(self), step):
                chunk = range(first, min(first + step, len(self)))
                for index, picture in zip(chunk, pool.map(self.read, chunk), strict=True):
                    left -= picture.width * picture.height * 3
                    if left < 0:
                        break
                    self.kept[index] = picture
                if left < 0:
                    break
        logger.info("Keeping %d of %d training pictures in memory", len(self.kept), len(self))

    def read(self, idx: int) -> Any:
        """The picture, from memory if it was kept; a blank one if it cannot be read."""
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
        datum, picture, transform = self.data_source[idx], self.read(idx), self.transform
        return {
            "label": datum.label,
            "domain": datum.domain,
            "impath": datum.impath,
            "index": idx,
            "img": transform(picture) if callable(transform) else picture,
        }


def readable(trainer: CLIPTrainer, batch: dict[str, Any], split: str) -> dict[str, Any]:
    """The batch without blank pictures.

    The trainer remembers what could not be read, and whose EXIF data call for a turn.

    Raises:
        ValueError: a picture cannot be read and DATALOADER.SKIP_UNREADABLE is off.
    """
    if "turned" in batch:
        turned = batch["index"][batch["turned"]].tolist()
        trainer.turned.setdefault(split, set()).update(turned)
    faults = set(filter(None, batch.get("unreadable", ())))
    if not faults:
        return batch
    cfg, seen = trainer.cfg, trainer.unreadable.setdefault(split, set())
    if not cfg.DATALOADER.SKIP_UNREADABLE:
        raise ValueError(
            f"{cfg.DATASET.NAME}, {split}: {min(faults)}. tools/check_data.py lists all such "
            "pictures; DATALOADER.SKIP_UNREADABLE True goes on without them."
        )
    for fault in sorted(faults - seen):
        logger.warning("Skipped in %s: %s", split, fault)
    seen |= faults
    good = ~batch["blank"]
    return batch | {key: batch[key][good] for key in ("img", "label") if not good.all()}


def readable_for_training(trainer: CLIPTrainer, batch: dict[str, Any]) -> dict[str, Any]:
    """The batch, whole: others stand in for what could not be read.

    Raises:
        ValueError: as `readable`, or there is nothing that could stand in.
    """
    batch = readable(trainer, batch, "train")
    if not len(batch["img"]):
        raise ValueError(f"{trainer.cfg.DATASET.NAME}: no training picture can be read.")
    return batch


def ahead(batches: Iterable[Any], depth: int = 2) -> Iterator[Any]:
    """The same batches, read and decoded by a thread while the model works on those before.

    Args:
        batches: made without random numbers, which the model's thread may draw meanwhile.
        depth: batches that may wait.
    """
    iterator, done = iter(batches), object()
    with ThreadPoolExecutor(1) as pool:  # one thread: the order stays
        waiting = deque(pool.submit(next, iterator, done) for _ in range(depth))
        while (batch := waiting.popleft().result()) is not done:
            waiting.append(pool.submit(next, iterator, done))
            yield batch


def training_pictures(trainer: CLIPTrainer) -> Iterator[tuple[Tensor, Tensor]]:
    """Every training picture once, prepared as at test, and its label; in batches of the test."""
    cfg = trainer.cfg
    transform = build_transform(cfg, is_train=False)
    pictures = KeptPictures(cfg, trainer.dm.dataset.train_x, transform=transform)
    for batch in DataLoader(pictures, cfg.DATALOADER.TEST.BATCH_SIZE):
        batch = readable(trainer, batch, "train")
        if len(batch["img"]):
            yield trainer.parse_batch_test(batch)


def prepare(model: CLIPClassifier, settings: CfgNode) -> CLIPClassifier:
    """Encode text in chunks, prune, compile, as far as the node MODEL says so; returns the model.

    Raises:
        ValueError: the schedule contradicts itself, or does not fit the backbone.
    """
    model.text.chunk = settings.TEXT_CHUNK
    prune = settings.PRUNE
    if prune.AT or prune.KEEP:
        width = require_vit(model.visual.visual).conv1.out_channels
        schedule = {"at": tuple(prune.AT), "keep": tuple(prune.KEEP)}
        model.prune(TokenPruner(**schedule, width=width, mix=prune.MIX))
    if settings.COMPILE:
        model.visual.compile(backend=settings.COMPILE)
    return model


def calibrate_pruner(trainer: CLIPTrainer) -> None:
    """Learn from training pictures, without labels, which patches the last block selects."""
    model = trainer.model.tuner
    if model.pruner is None or model.pruner.calibrated:
        return
    trainer.set_model_mode("eval")
    statistics = [LinearDiscriminant() for _ in model.pruner.at]
    for image, _ in training_pictures(trainer):
        model.collect_statistics(image, statistics)
    model.pruner.calibrate(statistics)
