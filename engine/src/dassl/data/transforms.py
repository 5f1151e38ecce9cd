"""Transforms from ``cfg.INPUT``: chosen by name, applied in the order of the two tables."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torchvision.transforms as T
from dassl.utils import check_availability
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as tvf
from yacs.config import CfgNode

__all__ = ["INTERPOLATION_MODES", "build_transform"]

INTERPOLATION_MODES = {
    "bilinear": T.InterpolationMode.BILINEAR, "bicubic": T.InterpolationMode.BICUBIC,
    "nearest": T.InterpolationMode.NEAREST,
}


class MiddleOfLongEdge:
    """Cut the middle out of a picture whose long edge is over 32 times the short one.

    Resized by its short edge, a picture of 20000 x 2 pixels would take gigabytes, of which the
    centre crop that follows keeps a hundredth of a percent.
    """

    RATIO = 32

    def __call__(self, img: Image.Image) -> Image.Image:
        """Return the picture, or its middle."""
        long, short = max(img.size), min(img.size)
        keep = self.RATIO * short
        if long <= keep:
            return img
        keep += (long - keep) % 2  # as much on either side, so that the middle stays the middle
        start = (long - keep) // 2
        width, height = img.size
        box = (start, 0, start + keep, height) if width == long else (0, start, width, start + keep)
        return img.crop(box)


class Random2DTranslation:
    """With probability ``p`` enlarge by one eighth and crop at a random place; else resize.

    Bilinear, whatever INPUT.INTERPOLATION says, as upstream. Sizes are in pixels.
    """

    interpolation = T.InterpolationMode.BILINEAR

    def __init__(self, height: int, width: int, p: float = 0.5) -> None:
        self.size = [height, width]
        self.p = p

    def __call__(self, img: Image.Image) -> Any:
        """Return a picture of the target size."""
        if random.uniform(0, 1) > self.p:
            return tvf.resize(img, self.size, self.interpolation)
        height, width = self.size
        larger = [round(height * 1.125), round(width * 1.125)]
        left = round(random.uniform(0, larger[1] - width))
        top = round(random.uniform(0, larger[0] - height))
        enlarged = tvf.resize(img, larger, self.interpolation)
        return tvf.crop(enlarged, top, left, height, width)


def cutout(img: Tensor, n_holes: int, length: int) -> Tensor:
    """Copy a picture (C, H, W), with zeroed squares of ``length`` pixels, clipped at the border."""
    height, width = img.shape[-2:]
    img, half = img.clone(), length // 2
    for _ in range(n_holes):
        # NumPy's global generator, as upstream: one seed gives the same squares.
        row, column = np.random.randint(height), np.random.randint(width)  # noqa: NPY002
        rows = slice(max(row - half, 0), row + half)
        columns = slice(max(column - half, 0), column + half)
        img[..., rows, columns] = 0
    return img


def gaussian_noise(img: Tensor, mean: float, std: float) -> Tensor:
    """Add normal noise to a picture, with probability one half."""
    if random.uniform(0, 1) > 0.5:
        return img
    return img + torch.randn_like(img) * std + mean


def instance_norm(img: Tensor) -> Tensor:
    """Give each channel of a picture (channels, height, width) mean 0 and deviation 1."""
    mean = img.mean(dim=(1, 2), keepdim=True)  # (channels, 1, 1)
    std = img.std(dim=(1, 2), keepdim=True)  # (channels, 1, 1)
    return (img - mean) / (std + 1e-8)


def _interpolation(cfg: CfgNode) -> T.InterpolationMode:
    check_availability(cfg.INTERPOLATION, INTERPOLATION_MODES, "INPUT.INTERPOLATION")
    return INTERPOLATION_MODES[cfg.INTERPOLATION]


def resize(cfg: CfgNode, size: Any = None) -> T.Resize:
    """Build the resize to INPUT.SIZE, or to ``size``, with INPUT.INTERPOLATION."""
    return T.Resize(size or tuple(cfg.SIZE), interpolation=_interpolation(cfg))


def _resized_crop(cfg: CfgNode) -> Any:
    scale = tuple(cfg.RRCROP_SCALE)
    return T.RandomResizedCrop(tuple(cfg.SIZE), scale=scale, interpolation=_interpolation(cfg))


def _policy(name: str) -> Callable[[CfgNode], Any]:
    return lambda cfg: T.AutoAugment(T.AutoAugmentPolicy(name))


def _randaugment2(cfg: CfgNode) -> Any:
    operation = T.RandomApply([T.TrivialAugmentWide()], p=0.6)
    return T.Compose([operation] * cfg.RANDAUGMENT_N)


def _colorjitter(cfg: CfgNode) -> Any:
    return T.ColorJitter(cfg.COLORJITTER_B, cfg.COLORJITTER_C, cfg.COLORJITTER_S, cfg.COLORJITTER_H)


def normalize(cfg: CfgNode) -> T.Normalize:
    """Build the normalisation by INPUT.PIXEL_MEAN and INPUT.PIXEL_STD."""
    return T.Normalize(mean=list(cfg.PIXEL_MEAN), std=list(cfg.PIXEL_STD))


# Each takes cfg.INPUT.
ON_PICTURES: dict[str, Callable[[CfgNode], Any]] = {
    "random_translation": lambda cfg: Random2DTranslation(*cfg.SIZE),
    "random_crop": lambda cfg: T.RandomCrop(tuple(cfg.SIZE), padding=cfg.CROP_PADDING),
    "random_resized_crop": _resized_crop,
    "random_flip": lambda cfg: T.RandomHorizontalFlip(),
    "imagenet_policy": _policy("imagenet"),
    "cifar10_policy": _policy("cifar10"),
    "svhn_policy": _policy("svhn"),
    "randaugment": lambda cfg: T.RandAugment(cfg.RANDAUGMENT_N, cfg.RANDAUGMENT_M),
    "randaugment_fixmatch": lambda cfg: T.Compose([T.TrivialAugmentWide()] * cfg.RANDAUGMENT_N),
    "randaugment2": _randaugment2,
    "colorjitter": _colorjitter,
    "randomgrayscale": lambda cfg: T.RandomGrayscale(cfg.RGS_P),
    "gaussian_blur": lambda cfg: T.RandomApply([T.GaussianBlur(cfg.GB_K)], p=cfg.GB_P),
}
ON_TENSORS: dict[str, Callable[[CfgNode], Any]] = {
    "cutout": lambda cfg: partial(cutout, n_holes=cfg.CUTOUT_N, length=cfg.CUTOUT_LEN),
    "normalize": normalize,
    "gaussian_noise": lambda cfg: partial(gaussian_noise, mean=cfg.GN_MEAN, std=cfg.GN_STD),
    "instance_norm": lambda cfg: instance_norm,
}

# center_crop changes nothing: the test transform always crops the centre.
AVAI_CHOICES = [*ON_PICTURES, *ON_TENSORS, "center_crop"]


def build_transform(
    cfg: CfgNode, is_train: bool = True, choices: Sequence[str] | None = None
) -> Callable[[Any], Any] | None:
    """Build the transform of training or of test pictures: to a tensor (3, height, width).

    ``choices`` replaces INPUT.TRANSFORMS. With INPUT.NO_TRANSFORM there is none. Raises ValueError
    if a name is unknown.
    """
    if cfg.INPUT.NO_TRANSFORM:
        return None
    choices = cfg.INPUT.TRANSFORMS if choices is None else choices
    for choice in choices:
        check_availability(choice, AVAI_CHOICES, "transform (INPUT.TRANSFORMS)")
    steps = _train_steps if is_train else _test_steps
    return T.Compose(steps(cfg.INPUT, choices))  # type: ignore[no-any-return]


def _train_steps(cfg: CfgNode, choices: Sequence[str]) -> list[Any]:
    crops = {"random_crop", "random_resized_crop"} & set(choices)
    steps: list[Any] = [] if crops else [resize(cfg)]
    steps += [make(cfg) for name, make in ON_PICTURES.items() if name in choices]
    steps.append(T.ToTensor())
    return steps + [make(cfg) for name, make in ON_TENSORS.items() if name in choices]


def _test_steps(cfg: CfgNode, choices: Sequence[str]) -> list[Any]:
    steps = [MiddleOfLongEdge(), resize(cfg, max(cfg.SIZE)), T.CenterCrop(tuple(cfg.SIZE))]
    names = [name for name in ("normalize", "instance_norm") if name in choices]
    return [*steps, T.ToTensor(), *(ON_TENSORS[name](cfg) for name in names)]
