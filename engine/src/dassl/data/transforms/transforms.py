"""Transforms from ``cfg.INPUT``: which are chosen by name, their order is fixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torchvision.transforms as T
from dassl.data.transforms.augment import (
    Cutout,
    GaussianNoise,
    InstanceNormalization,
    MiddleOfLongEdge,
    Random2DTranslation,
)
from dassl.data.transforms.autoaugment import CIFAR10Policy, ImageNetPolicy, SVHNPolicy
from dassl.data.transforms.randaugment import RandAugment, RandAugment2, RandAugmentFixMatch
from dassl.utils import check_availability
from yacs.config import CfgNode

__all__ = [
    "AVAI_CHOICES",
    "INTERPOLATION_MODES",
    "Cutout",
    "GaussianNoise",
    "InstanceNormalization",
    "Random2DTranslation",
    "build_transform",
]

INTERPOLATION_MODES = {
    "bilinear": T.InterpolationMode.BILINEAR,
    "bicubic": T.InterpolationMode.BICUBIC,
    "nearest": T.InterpolationMode.NEAREST,
}

CROPS = ("random_crop", "random_resized_crop")

Factory = Callable[[CfgNode], Any]  # takes cfg.INPUT


def _interpolation(cfg: CfgNode) -> T.InterpolationMode:
    check_availability(cfg.INTERPOLATION, INTERPOLATION_MODES, "INPUT.INTERPOLATION")
    return INTERPOLATION_MODES[cfg.INTERPOLATION]


def _translation(cfg: CfgNode) -> Any:
    height, width = cfg.SIZE
    return Random2DTranslation(height, width)  # bilinear, whatever INPUT.INTERPOLATION says


def _random_crop(cfg: CfgNode) -> Any:
    return T.RandomCrop(tuple(cfg.SIZE), padding=cfg.CROP_PADDING)


def _resized_crop(cfg: CfgNode) -> Any:
    scale = tuple(cfg.RRCROP_SCALE)
    return T.RandomResizedCrop(tuple(cfg.SIZE), scale=scale, interpolation=_interpolation(cfg))


def _colorjitter(cfg: CfgNode) -> Any:
    return T.ColorJitter(cfg.COLORJITTER_B, cfg.COLORJITTER_C, cfg.COLORJITTER_S, cfg.COLORJITTER_H)


def _gaussian_blur(cfg: CfgNode) -> Any:
    return T.RandomApply([T.GaussianBlur(cfg.GB_K)], p=cfg.GB_P)


def _normalize(cfg: CfgNode) -> Any:
    return T.Normalize(mean=list(cfg.PIXEL_MEAN), std=list(cfg.PIXEL_STD))


# In the order in which they are applied.
ON_PICTURES: dict[str, Factory] = {
    "random_translation": _translation,
    "random_crop": _random_crop,
    "random_resized_crop": _resized_crop,
    "random_flip": lambda cfg: T.RandomHorizontalFlip(),
    "imagenet_policy": lambda cfg: ImageNetPolicy(),
    "cifar10_policy": lambda cfg: CIFAR10Policy(),
    "svhn_policy": lambda cfg: SVHNPolicy(),
    "randaugment": lambda cfg: RandAugment(cfg.RANDAUGMENT_N, cfg.RANDAUGMENT_M),
    "randaugment_fixmatch": lambda cfg: RandAugmentFixMatch(cfg.RANDAUGMENT_N),
    "randaugment2": lambda cfg: RandAugment2(cfg.RANDAUGMENT_N),
    "colorjitter": _colorjitter,
    "randomgrayscale": lambda cfg: T.RandomGrayscale(cfg.RGS_P),
    "gaussian_blur": _gaussian_blur,
}
ON_TENSORS: dict[str, Factory] = {
    "cutout": lambda cfg: Cutout(cfg.CUTOUT_N, cfg.CUTOUT_LEN),
    "normalize": _normalize,
    "gaussian_noise": lambda cfg: GaussianNoise(cfg.GN_MEAN, cfg.GN_STD),
    "instance_norm": lambda cfg: InstanceNormalization(),
}

# center_crop changes nothing: the test always cuts the middle out.
AVAI_CHOICES = [*ON_PICTURES, *ON_TENSORS, "center_crop"]


def build_transform(
    cfg: CfgNode, is_train: bool = True, choices: Sequence[str] | None = None
) -> Callable[[Any], Any] | None:
    """Build the transform of training or of test pictures.

    Args:
        cfg: The whole config.
        is_train: For training; otherwise the picture is resized, cut in the middle and normalised.
        choices: Names of transforms; none: ``cfg.INPUT.TRANSFORMS``.

    Returns:
        From a picture to a tensor (3, height, width), or nothing with ``INPUT.NO_TRANSFORM``.

    Raises:
        ValueError: If a name is unknown.
    """
    if cfg.INPUT.NO_TRANSFORM:
        return None
    choices = cfg.INPUT.TRANSFORMS if choices is None else choices
    for choice in choices:
        check_availability(choice, AVAI_CHOICES, "transform (INPUT.TRANSFORMS)")
    steps = _train_steps if is_train else _test_steps
    transform: Callable[[Any], Any] = T.Compose(steps(cfg.INPUT, choices))
    return transform


def _train_steps(cfg: CfgNode, choices: Sequence[str]) -> list[Any]:
    steps: list[Any] = []
    if not any(crop in choices for crop in CROPS):
        steps.append(T.Resize(tuple(cfg.SIZE), interpolation=_interpolation(cfg)))
    steps += [make(cfg) for name, make in ON_PICTURES.items() if name in choices]
    steps.append(T.ToTensor())
    steps += [make(cfg) for name, make in ON_TENSORS.items() if name in choices]
    return steps


def _test_steps(cfg: CfgNode, choices: Sequence[str]) -> list[Any]:
    steps: list[Any] = [
        MiddleOfLongEdge(),
        T.Resize(max(cfg.SIZE), interpolation=_interpolation(cfg)),
        T.CenterCrop(tuple(cfg.SIZE)),
        T.ToTensor(),
    ]
    names = [name for name in ("normalize", "instance_norm") if name in choices]
    return steps + [ON_TENSORS[name](cfg) for name in names]
