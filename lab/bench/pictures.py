"""Pictures written for the purpose, the project's loaders on them, and the loader's rate."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dassl.config import get_cfg_default
from dassl.data import DataManager
from dassl.data.datasets import DATASET_REGISTRY
from PIL import Image
from yacs.config import CfgNode

from datasets.base import FewShotDataset
from lab.bench.backbones import PROJECT
from lab.bench.clock import Clock
from lab.bench.measure import compared
from lab.bench.names import class_names
from lab.bench.rows import Row
from runs.config import merge_file
from runs.data import CachedDataset
from trainers import extend_cfg

CONFIG = PROJECT / "configs/trainers/Spotlighter/vit_b16_ep20_ctxv1.yaml"
SIZE = (500, 375)  # of a typical picture of ImageNet, in pixels
CLASSES = 10
CACHE_MB = 4096


@DATASET_REGISTRY.register()
class BenchmarkPictures(FewShotDataset):
    """JPEG files of `write_pictures`; the same ones for training and test."""

    dataset_dir, image_dir, split_file = "pictures", "images", "split.json"


def write_pictures(root: Path, count: int) -> None:
    """Write JPEG files with structure and noise, about as large as photographs, and a split."""
    folder = root / BenchmarkPictures.dataset_dir
    (folder / BenchmarkPictures.image_dir).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    names, entries = class_names(CLASSES), []
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC), dtype=np.float32)
        pixels = (pixels + rng.normal(0, 12, pixels.shape)).clip(0, 255).astype(np.uint8)
        file = folder / BenchmarkPictures.image_dir / f"{i}.jpg"
        Image.fromarray(pixels).save(file, quality=90)
        entries.append([file.name, i % CLASSES, names[i % CLASSES]])
    split = {"train": entries, "val": [], "test": entries}
    (folder / BenchmarkPictures.split_file).write_text(json.dumps(split), encoding="utf-8")


@dataclass(frozen=True)
class Source:
    """Where pictures come from and how they are prepared.

    Args:
        root: folder of the data set.
        dataset: stem of a yaml in configs/datasets; empty for `BenchmarkPictures`.
        size: pixels of a side, as the model takes them.
        batch: pictures.
        threads: of the row; a loader's processes have one each.
    """

    root: Path
    dataset: str = ""
    size: int = 224
    batch: int = 32
    threads: int = 1

    def config(self, workers: int, cache_mb: int = 0) -> CfgNode:
        """The config of a run with ViT-B/16 on these pictures."""
        cfg = get_cfg_default()
        extend_cfg(cfg)
        merge_file(cfg, CONFIG)
        if self.dataset:
            merge_file(cfg, PROJECT / f"configs/datasets/{self.dataset}.yaml")
        else:
            cfg.DATASET.NAME = BenchmarkPictures.__name__
        cfg.DATASET.ROOT, cfg.INPUT.SIZE = str(self.root), (self.size, self.size)
        cfg.VERBOSE, cfg.SEED = False, 1
        cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.CACHE_MB = workers, cache_mb
        cfg.DATALOADER.TRAIN_X.BATCH_SIZE = cfg.DATALOADER.TEST.BATCH_SIZE = self.batch
        cfg.freeze()
        return cfg

    def manager(self, workers: int, cache_mb: int = 0) -> DataManager:
        """The loaders of training and test, as a run builds them."""
        return DataManager(self.config(workers, cache_mb), dataset_wrapper=CachedDataset)

    @property
    def note(self) -> str:
        """Which pictures, for a row."""
        return self.dataset or f"JPEG of {SIZE[0]} x {SIZE[1]}"


def exhaust(loader: Iterable[Any]) -> None:
    """Read all batches and drop them."""
    for _ in loader:
        pass


def time_loader(source: Source, workers: Sequence[int], clock: Clock) -> list[Row]:
    """Passes of the training loader, decoding each picture or with the decoded ones kept."""
    rows: dict[str, Row] = {}
    works = {}
    for count in workers:
        for form, cache_mb in (("plain", 0), ("cached", CACHE_MB)):
            clock.tell(f"building the loader: {form}, {count} workers")
            loader = source.manager(count, cache_mb).train_loader_x
            loader.dataset.keep()
            key = f"{form}, {count} workers"
            works[key] = lambda loader=loader: exhaust(loader)
            rows[key] = Row(
                command="loader",
                trainer="",
                form=form,
                batch=source.batch,
                image_size=source.size,
                dtype="float32",
                device="cpu",
                threads=source.threads,
                workers=count,
                note=source.note,
            )
            seen = len(loader) * loader.batch_size
    timings = clock.compare(works)
    found = {key: row.timed(timings[key], seen) for key, row in rows.items()}
    return [
        compared(row, {"published": found[f"plain, {row.workers} workers"]}).signed()
        for row in found.values()
    ]
