"""Loaders of training, validation and test pictures, built from the config."""

import logging
import os
import re
from collections.abc import Callable, Sequence
from multiprocessing.queues import Queue
from typing import Any

import torch
import torchvision.transforms as T
from dassl.data.datasets import Datum, build_dataset
from dassl.data.samplers import build_sampler
from dassl.data.transforms import build_transform, normalize, resize
from dassl.utils import read_image
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset
from yacs.config import CfgNode

__all__ = ["DataManager", "DatasetWrapper", "build_data_loader", "build_transform"]

logger = logging.getLogger(__name__)

Transform = Callable[[Any], Any]


class DatasetWrapper(Dataset[dict[str, Any]]):
    """Items with ``label``, ``domain``, ``impath``, ``index`` and the transformed picture.

    The picture is ``img``; a list of transforms gives ``img``, ``img2``, ... With
    DATALOADER.K_TRANSFORMS above 1 each of them is a list of that many training views. With
    DATALOADER.RETURN_IMG0 the picture without augmentation is ``img0``. Without a transform the
    picture is given as it is. Raises ValueError if K_TRANSFORMS is above 1 in training and there is
    no transform.
    """

    def __init__(
        self, cfg: CfgNode, data_source: Sequence[Datum],
        transform: Transform | Sequence[Transform] | None = None, is_train: bool = False,
    ) -> None:
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise ValueError(
                f"DATALOADER.K_TRANSFORMS is {self.k_tfm}, but there is no transform to repeat; "
                "set it to 1 or choose INPUT.TRANSFORMS"
            )
        steps: list[Any] = [resize(cfg.INPUT), T.ToTensor()]
        if "normalize" in cfg.INPUT.TRANSFORMS:
            steps.append(normalize(cfg.INPUT))
        self.to_tensor = T.Compose(steps)  # no augmentation

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        datum = self.data_source[idx]
        item: dict[str, Any] = {key: getattr(datum, key) for key in ("label", "domain", "impath")}
        item["index"] = idx
        picture = read_image(datum.impath)
        several = isinstance(self.transform, (list, tuple))
        transforms: Any = self.transform if several else [self.transform]
        for number, transform in enumerate(transforms, 1):
            item["img" if number == 1 else f"img{number}"] = self._views(transform, picture)
        if self.return_img0:
            item["img0"] = self.to_tensor(picture)
        return item

    def _views(self, transform: Transform | None, picture: Any) -> Any:
        if transform is None:
            return picture
        views = [transform(picture) for _ in range(self.k_tfm)]
        return views[0] if self.k_tfm == 1 else views


class Loader(DataLoader[dict[str, Any]]):
    """A loader whose order of pictures does not depend on whether its workers persist.

    Each pass draws two numbers from torch's default generator: a seed for the workers, then one for
    the order. Workers that persist would draw the first one only once, which changes the order of
    all later passes. Here it is drawn, and dropped, for them as well.
    """

    _passes = 0

    def __iter__(self) -> Any:
        """Start a pass."""
        if self.persistent_workers and self._passes > 0:
            torch.empty((), dtype=torch.int64).random_()
        self._passes += 1
        return super().__iter__()


def _exit_on_lost_batch(worker: int) -> None:
    """In a worker: exit when a batch cannot be sent, else the loader waits for it forever.

    The exit code is the number of the system's error, which torch writes at the end: "... (24)".
    """

    def end(error: Exception, _: object) -> None:
        number = re.search(r"\((\d+)\)$", str(error))
        os._exit(getattr(error, "errno", None) or int(number[1] if number else 1))

    Queue._on_queue_feeder_error = staticmethod(end)  # type: ignore[attr-defined]


def build_data_loader(  # noqa: PLR0913 - the signature of upstream
    cfg: CfgNode, sampler_type: str = "SequentialSampler",
    data_source: Sequence[Datum] | None = None, batch_size: int = 64, n_domain: int = 0,
    n_ins: int = 2, tfm: Any = None, is_train: bool = True,
    dataset_wrapper: Callable[..., Any] | None = None,
) -> Loader:
    """Build one loader; in training an incomplete last batch is dropped, unless it is the only one.

    Order and augmentation depend on the seed and on NUM_WORKERS: torch's default generator orders
    the pictures and seeds the Python, NumPy and torch generators of each worker. The order is the
    same for any positive number of workers; the augmentation is not. ``n_domain`` and ``n_ins`` are
    those of ``build_sampler``; ``dataset_wrapper`` is a class to use instead of DatasetWrapper.
    Raises ValueError if there are no pictures.
    """
    if not data_source:
        raise ValueError(f"{cfg.DATASET.NAME} has no pictures for this loader; got an empty list")
    wrapper = dataset_wrapper or DatasetWrapper
    workers = cfg.DATALOADER.NUM_WORKERS
    return Loader(
        wrapper(cfg, data_source, transform=tfm, is_train=is_train), batch_size=batch_size,
        sampler=build_sampler(sampler_type, cfg, data_source, batch_size, n_domain, n_ins),
        num_workers=workers, worker_init_fn=_exit_on_lost_batch,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=cfg.USE_CUDA and torch.cuda.is_available(), persistent_workers=workers > 0,
    )


class DataManager:
    """The data set of the config and its loaders; a loader without pictures is None.

    The ``custom`` transforms, one or several, replace those of the config.
    """

    def __init__(
        self, cfg: CfgNode, custom_tfm_train: Any = None, custom_tfm_test: Any = None,
        dataset_wrapper: Callable[..., Any] | None = None,
    ) -> None:
        self._cfg = cfg
        self._wrapper = dataset_wrapper
        self.dataset = dataset = build_dataset(cfg)
        tfm_train = custom_tfm_train or build_transform(cfg, is_train=True)
        tfm_test = custom_tfm_test or build_transform(cfg, is_train=False)
        self.train_loader_x = self._loader(dataset.train_x, "TRAIN_X", tfm_train)
        self.train_loader_u = self._loader(dataset.train_u, "TRAIN_U", tfm_train)
        self.val_loader = self._loader(dataset.val, "TEST", tfm_test)
        self.test_loader = self._loader(dataset.test, "TEST", tfm_test)
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    def _loader(self, data_source: list[Datum] | None, node: str, tfm: Any) -> Loader | None:
        if not data_source:
            return None
        settings = self._cfg.DATALOADER[node]
        if settings.get("SAME_AS_X"):
            settings = self._cfg.DATALOADER.TRAIN_X
        return build_data_loader(
            self._cfg, settings.SAMPLER, data_source, settings.BATCH_SIZE,
            settings.get("N_DOMAIN", 0), settings.get("N_INS", 2),
            tfm=tfm, is_train=node != "TEST", dataset_wrapper=self._wrapper,
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
        domains = {"Source": cfg.DATASET.SOURCE_DOMAINS, "Target": cfg.DATASET.TARGET_DOMAINS}
        rows = [("Dataset", cfg.DATASET.NAME)]
        rows += [(name, str(found)) for name, found in domains.items() if found]
        rows += [("# classes", f"{self.num_classes:,}")]
        for part in ("train_x", "train_u", "val", "test"):
            if found := getattr(self.dataset, part):
                rows.append((f"# {part}", f"{len(found):,}"))
        logger.info("%s", tabulate(rows, disable_numparse=True))
