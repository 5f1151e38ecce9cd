"""Pictures as items of a torch data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torchvision.transforms as T
from dassl.data.datasets import Datum
from dassl.data.transforms import INTERPOLATION_MODES
from dassl.utils import read_image
from torch.utils.data import Dataset
from yacs.config import CfgNode

__all__ = ["DatasetWrapper"]

Transform = Callable[[Any], Any]


def _plain_transform(cfg: CfgNode) -> Any:
    """Resize, to tensor, normalise if chosen: the picture without any augmentation."""
    mode = INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]
    steps: list[Any] = [T.Resize(tuple(cfg.INPUT.SIZE), interpolation=mode), T.ToTensor()]
    if "normalize" in cfg.INPUT.TRANSFORMS:
        steps.append(T.Normalize(mean=list(cfg.INPUT.PIXEL_MEAN), std=list(cfg.INPUT.PIXEL_STD)))
    return T.Compose(steps)


class DatasetWrapper(Dataset[dict[str, Any]]):
    """Items with ``label``, ``domain``, ``impath``, ``index`` and the transformed picture.

    The picture lies under ``img``; with a list of transforms one each under ``img``, ``img2``, ...
    With DATALOADER.K_TRANSFORMS above 1 each of them is a list of that many training views.
    With DATALOADER.RETURN_IMG0 the picture without augmentation lies under ``img0``.

    Args:
        cfg: The whole config.
        data_source: The pictures.
        transform: From a picture to a tensor, or several of them; none: the picture as it is.
        is_train: For training; otherwise K_TRANSFORMS counts as 1.

    Raises:
        ValueError: If K_TRANSFORMS is above 1 and there is no transform.
    """

    def __init__(
        self,
        cfg: CfgNode,
        data_source: Sequence[Datum],
        transform: Transform | Sequence[Transform] | None = None,
        is_train: bool = False,
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
        self.to_tensor = _plain_transform(cfg)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        datum = self.data_source[idx]
        item: dict[str, Any] = {
            "label": datum.label,
            "domain": datum.domain,
            "impath": datum.impath,
            "index": idx,
        }
        picture = read_image(datum.impath)
        item.update(self._views(picture))
        if self.return_img0:
            item["img0"] = self.to_tensor(picture)
        return item

    def _views(self, picture: Any) -> dict[str, Any]:
        if self.transform is None:
            return {"img": picture}
        if not isinstance(self.transform, (list, tuple)):
            return {"img": self._repeat(self.transform, picture)}
        names = ["img", *(f"img{i}" for i in range(2, len(self.transform) + 1))]
        views = [self._repeat(transform, picture) for transform in self.transform]
        return dict(zip(names, views, strict=True))

    def _repeat(self, transform: Any, picture: Any) -> Any:
        views = [transform(picture) for _ in range(self.k_tfm)]
        return views[0] if self.k_tfm == 1 else views
