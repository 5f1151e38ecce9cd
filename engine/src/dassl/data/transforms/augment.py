"""Augmentations that torchvision does not have."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

__all__ = [
    "Cutout",
    "GaussianNoise",
    "InstanceNormalization",
    "MiddleOfLongEdge",
    "Random2DTranslation",
]


class MiddleOfLongEdge:
    """Cut the middle out of a picture that is extremely long, and leave all others alone.

    Resized by its short edge, one of 20000 x 2 pixels would take gigabytes, of which the cut in the
    middle that follows keeps a hundredth of a percent.

    Args:
        ratio: Of the long edge to the short one that is let through.
    """

    def __init__(self, ratio: int = 32) -> None:
        self.ratio = ratio

    def __call__(self, img: Image.Image) -> Image.Image:
        """Return the picture, or its middle."""
        long, short = max(img.size), min(img.size)
        keep = self.ratio * short
        if long <= keep:
            return img
        keep += (long - keep) % 2  # as much on either side, so that the middle stays the middle
        start = (long - keep) // 2
        width, height = img.size
        box = (start, 0, start + keep, height) if width == long else (0, start, width, start + keep)
        return img.crop(box)


class Random2DTranslation:
    """Enlarge a picture by one eighth and cut the target size out of it somewhere, or resize only.

    Args:
        height: Target height in pixels.
        width: Target width in pixels.
        p: Probability of the cut.
        interpolation: How to resize.
    """

    def __init__(
        self,
        height: int,
        width: int,
        p: float = 0.5,
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
    ) -> None:
        self.size = [height, width]
        self.p = p
        self.interpolation = interpolation

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


class Cutout:
    """Set squares of a picture to zero.

    Args:
        n_holes: Number of squares.
        length: Edge of a square in pixels; squares are clipped at the border.
    """

    def __init__(self, n_holes: int = 1, length: int = 16) -> None:
        self.n_holes = n_holes
        self.length = length

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Return a copy of the picture (channels, height, width) with its squares."""
        height, width = img.shape[-2:]
        img = img.clone()
        half = self.length // 2
        for _ in range(self.n_holes):
            # NumPy's global generator, as upstream: one seed gives the same squares.
            row, column = np.random.randint(height), np.random.randint(width)  # noqa: NPY002
            rows = slice(max(row - half, 0), row + half)
            columns = slice(max(column - half, 0), column + half)
            img[..., rows, columns] = 0
        return img


class GaussianNoise:
    """Add noise to a picture.

    Args:
        mean: Mean of the noise.
        std: Its standard deviation.
        p: Probability that noise is added.
    """

    def __init__(self, mean: float = 0.0, std: float = 0.15, p: float = 0.5) -> None:
        self.mean = mean
        self.std = std
        self.p = p

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Return the picture, with noise or without."""
        if random.uniform(0, 1) > self.p:
            return img
        return img + torch.randn_like(img) * self.std + self.mean


class InstanceNormalization:
    """Give each channel of a picture mean 0 and standard deviation 1.

    Args:
        eps: Added to the standard deviation.
    """

    def __init__(self, eps: float = 1e-8) -> None:
        self.eps = eps

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Return the picture (channels, height, width), each channel standardised."""
        mean = img.mean(dim=(1, 2), keepdim=True)  # (channels, 1, 1)
        std = img.std(dim=(1, 2), keepdim=True)  # (channels, 1, 1)
        return (img - mean) / (std + self.eps)
