"""The project's loaders on made-up JPEG files: their rate, and the whole way to logits."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from dassl.data import DataManager
from dassl.data.datasets import DATASET_REGISTRY
from PIL import Image
from yacs.config import CfgNode

from datasets.base import FewShotDataset
from lab.bench.backbones import PROJECT, Schedule, made_up_names
from lab.bench.clock import REPORT, Clock
from lab.bench.measure import Bench
from lab.bench.rows import Row, timed_rows
from lab.bench.works import Classifier, classifier, zero_shot
from runs.config import default_config, merge_file
from runs.data import CachedDataset, prefetch

CONFIG = PROJECT / "configs/trainers/Spotlighter/vit_b16_ep20_ctxv1.yaml"
SIZE = (500, 375)  # of a typical picture of ImageNet, in pixels
CLASSES = 10
CACHE_MB = 4096
TRAINER = "Spotlighter"  # whose way from files to logits is timed


@DATASET_REGISTRY.register()
class BenchmarkPictures(FewShotDataset):
    """JPEG files of `write_pictures`; the same ones for training and test."""

    dataset_dir, image_dir, split_file = "pictures", "images", "split.json"


def write_pictures(root: Path, count: int, classes: int = CLASSES) -> None:
    """Write JPEG files with structure and noise, about as large as photographs, and a split."""
    folder = root / BenchmarkPictures.dataset_dir
    (folder / BenchmarkPictures.image_dir).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    names, entries = made_up_names(classes), []
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC), dtype=np.float32)
        pixels = (pixels + rng.normal(0, 12, pixels.shape)).clip(0, 255).astype(np.uint8)
        file = folder / BenchmarkPictures.image_dir / f"{i}.jpg"
        Image.fromarray(pixels).save(file, quality=90)
        entries.append([file.name, i % classes, names[i % classes]])
    split = {"train": entries, "val": [], "test": entries}
    (folder / BenchmarkPictures.split_file).write_text(json.dumps(split), encoding="utf-8")


@dataclass(frozen=True)
class Source:
    """Where pictures come from and how they are prepared."""

    root: Path  # folder of the data set
    dataset: str = ""  # stem of a yaml in configs/datasets; empty for `BenchmarkPictures`
    size: int = 224  # pixels of a side, as the model takes them
    batch: int = 32  # pictures
    threads: int = 1  # of the row; a loader's processes have one each

    def config(self, workers: int, cache_mb: int = 0) -> CfgNode:
        """The config of a run with ViT-B/16 on these pictures."""
        cfg = default_config()
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


def time_loader(source: Source, workers: Sequence[int], clock: Clock) -> list[Row]:
    """Passes of the training loader, decoding each picture or with the decoded ones kept."""
    rows: dict[str, Row] = {}
    works = {}
    for count in workers:
        for form, cache_mb in (("plain", 0), ("cached", CACHE_MB)):
            REPORT.update(f"building the loader: {form}, {count} workers")
            loader = source.manager(count, cache_mb).train_loader_x
            loader.dataset.keep()
            key = f"{form}, {count} workers"
            works[key] = partial(deque, loader, maxlen=0)  # reads all batches and drops them
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
    found = timed_rows(rows, clock.compare(works), seen)
    plain = {row.workers: row.images_per_s for row in found.values() if row.form == "plain"}
    return [replace(r, speedup=r.images_per_s / plain[r.workers]) for r in found.values()]


def time_end_to_end(
    bench: Bench, source: Source, workers: int, schedules: Sequence[Schedule] = ()
) -> list[Row]:
    """Passes of zero-shot CLIP, batch after batch, and of Spotlighter, which reads prefetch."""
    loader = source.manager(workers).test_loader
    label_names = {item.label: item.classname for item in loader.dataset.data_source}
    names = [name for _, name in sorted(label_names.items())]
    row = bench.row("end2end", TRAINER, "zero-shot", len(names), source.batch)
    row = replace(row, workers=workers, note=source.note)

    def one_pass(classify: Classifier, batches: Callable[[], Iterable[Any]]) -> None:
        for batch in batches():
            classify(batch["img"].to(bench.device, non_blocking=True))

    rows = {"zero-shot": row}
    works = {"zero-shot": partial(one_pass, zero_shot(bench.clip, names), lambda: loader)}
    for schedule in (None, *schedules):
        classify = classifier(bench.ours(TRAINER, names, schedule))
        own = replace(row, form="ours", dtype=bench.dtype)
        key = f"ours, {schedule}"
        rows[key] = own if schedule is None else own.pruned(schedule)
        works[key] = partial(one_pass, classify, lambda: prefetch(loader))
    timings = bench.clock.compare(works)
    return list(timed_rows(rows, timings, len(loader.dataset)).values())
