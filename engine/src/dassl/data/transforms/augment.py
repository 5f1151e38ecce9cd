"""Augmentations that torchvision does not have."""

from __future__ import annotations

import random

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

__all__ = ["Cutout", "GaussianNoise", "InstanceNormalization", "Random2DTranslation"]


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

    def __call__(self, img: Image.Image) -> Image.Image:
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
        height, width = img.shape[-2:]
        img = img.clone()
        for _ in range(self.n_holes):
            top = random.randrange(height) - self.length // 2
            left = random.randrange(width) - self.length // 2
            rows = slice(max(top, 0), max(top + self.length, 0))
            columns = slice(max(left, 0), max(left + self.length, 0))
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
        mean = img.mean(dim=(1, 2), keepdim=True)  # (channels, 1, 1)
        std = img.std(dim=(1, 2), keepdim=True)  # (channels, 1, 1)
        return (img - mean) / (std + self.eps)
