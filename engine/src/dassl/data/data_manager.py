"""From the config to the loaders of training, validation and test."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from multiprocessing.queues import Queue
from typing import Any

import torch
from dassl.data.datasets import Datum, build_dataset
from dassl.data.samplers import build_sampler
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.data.wrapper import DatasetWrapper
from dassl.utils import read_image
from tabulate import tabulate
from torch.utils.data import DataLoader
from yacs.config import CfgNode

__all__ = [
    "INTERPOLATION_MODES",
    "DataManager",
    "DatasetWrapper",
    "build_data_loader",
    "build_dataset",
    "build_sampler",
    "build_transform",
    "read_image",
]

logger = logging.getLogger(__name__)


class Loader(DataLoader[dict[str, Any]]):
    """A loader whose order of pictures is the same whether its workers persist or not.

    Each pass draws two numbers from torch's default generator: a seed for the workers, then one for
    the order. Workers that persist would draw the first one only once, which changes the order
    of all later passes; here it is drawn, and dropped, for them as well.
    """

    _passes = 0

    def __iter__(self) -> Any:
        """Start a pass."""
        if self.persistent_workers and self._passes > 0:
            torch.empty((), dtype=torch.int64).random_()
        self._passes += 1
        return super().__iter__()


def _end_where_a_batch_is_lost(worker: int) -> None:
    """In a worker: end where a batch cannot be handed over, else the loader waits for it forever.

    The exit code is the number of the system's error, which torch writes at the end: "... (24)".

    Args:
        worker: Its number; any.
    """

    def end(error: Exception, _: object) -> None:
        number = re.search(r"\((\d+)\)$", str(error))
        os._exit(getattr(error, "errno", None) or int(number[1] if number else 1))

    Queue._on_queue_feeder_error = staticmethod(end)  # type: ignore[attr-defined]


def build_data_loader(  # noqa: PLR0913 - the signature of upstream
    cfg: CfgNode,
    sampler_type: str = "SequentialSampler",
    data_source: Sequence[Datum] | None = None,
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Any = None,
    is_train: bool = True,
    dataset_wrapper: Callable[..., Any] | None = None,
) -> Loader:
    """Build one loader.

    Order and augmentation depend on the seed and on NUM_WORKERS: torch's default generator orders
    the pictures and seeds the Python, NumPy and torch generators of each worker. Without workers
    order and augmentation draw from the same generators. The order is the same for any positive
    number of workers; the augmentation is not.

    Args:
        cfg: The whole config.
        sampler_type: Name of the sampler.
        data_source: The pictures.
        batch_size: Pictures per batch.
        n_domain: Domains per batch, of RandomDomainSampler.
        n_ins: Pictures of one class in a batch, of RandomClassSampler.
        tfm: Transform, or several.
        is_train: For training: an incomplete last batch is dropped, unless it is the only one.
        dataset_wrapper: Class to use instead of DatasetWrapper.

    Raises:
        ValueError: If there are no pictures.
    """
    if not data_source:
        raise ValueError(f"{cfg.DATASET.NAME} has no pictures for this loader; got an empty list")
    wrapper = DatasetWrapper if dataset_wrapper is None else dataset_wrapper
    workers = cfg.DATALOADER.NUM_WORKERS
    return Loader(
        wrapper(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=build_sampler(
            sampler_type,
            data_source=data_source,
            batch_size=batch_size,
            n_domain=n_domain,
            n_ins=n_ins,
        ),
        num_workers=workers,
        worker_init_fn=_end_where_a_batch_is_lost,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=cfg.USE_CUDA and torch.cuda.is_available(),
        persistent_workers=workers > 0,
    )


class DataManager:
    """The data set of the config and its loaders.

    ``val_loader`` and ``train_loader_u`` are None where the data set has no such pictures.

    Args:
        cfg: The whole config.
        custom_tfm_train: Transform (or several) of training instead of the config's.
        custom_tfm_test: Transform of validation and test instead of the config's.
        dataset_wrapper: Class to use instead of DatasetWrapper.
    """

    def __init__(
        self,
        cfg: CfgNode,
        custom_tfm_train: Any = None,
        custom_tfm_test: Any = None,
        dataset_wrapper: Callable[..., Any] | None = None,
    ) -> None:
        dataset = build_dataset(cfg)
        given = custom_tfm_train is not None
        self._tfm_train = custom_tfm_train if given else build_transform(cfg, is_train=True)
        given = custom_tfm_test is not None
        self._tfm_test = custom_tfm_test if given else build_transform(cfg, is_train=False)
        self._cfg = cfg
        self._wrapper = dataset_wrapper
        self.dataset = dataset
        self.train_loader_x = self._train_loader(dataset.train_x, "TRAIN_X")
        self.train_loader_u = self._train_loader(dataset.train_u, "TRAIN_U")
        self.val_loader = self._test_loader(dataset.val)
        self.test_loader = self._test_loader(dataset.test)
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    def _train_loader(self, data_source: list[Datum] | None, node: str) -> Loader | None:
        if not data_source:
            return None
        settings = self._cfg.DATALOADER[node]
        if settings.get("SAME_AS_X"):
            settings = self._cfg.DATALOADER.TRAIN_X
        return build_data_loader(
            self._cfg,
            sampler_type=settings.SAMPLER,
            data_source=data_source,
            batch_size=settings.BATCH_SIZE,
            n_domain=settings.N_DOMAIN,
            n_ins=settings.N_INS,
            tfm=self._tfm_train,
            is_train=True,
            dataset_wrapper=self._wrapper,
        )

    def _test_loader(self, data_source: list[Datum] | None) -> Loader | None:
        if not data_source:
            return None
        return build_data_loader(
            self._cfg,
            sampler_type=self._cfg.DATALOADER.TEST.SAMPLER,
            data_source=data_source,
            batch_size=self._cfg.DATALOADER.TEST.BATCH_SIZE,
            tfm=self._tfm_test,
            is_train=False,
            dataset_wrapper=self._wrapper,
        )

    @property
    def num_classes(self) -> int:
        """Largest training label plus 1."""
        return int(self.dataset.num_classes)

    @property
    def num_source_domains(self) -> int:
        """Number of domains that training pictures come from."""
        return len(self._cfg.DATASET.SOURCE_DOMAINS)

    @property
    def lab2cname(self) -> dict[int, str]:
        """Class name by label."""
        mapping: dict[int, str] = self.dataset.lab2cname
        return mapping

    def show_dataset_summary(self, cfg: CfgNode) -> None:
        """Log a table with the name, the domains and the number of classes and pictures."""
        rows: list[list[str]] = [["Dataset", cfg.DATASET.NAME]]
        if cfg.DATASET.SOURCE_DOMAINS:
            rows.append(["Source", str(cfg.DATASET.SOURCE_DOMAINS)])
        if cfg.DATASET.TARGET_DOMAINS:
            rows.append(["Target", str(cfg.DATASET.TARGET_DOMAINS)])
        rows.append(["# classes", f"{self.num_classes:,}"])
        for part in ("train_x", "train_u", "val", "test"):
            pictures = getattr(self.dataset, part)
            if pictures:
                rows.append([f"# {part}", f"{len(pictures):,}"])
        logger.info("%s", tabulate(rows, disable_numparse=True))
