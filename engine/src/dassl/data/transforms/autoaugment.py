"""The policies of AutoAugment under upstream's names; they are torchvision's."""

from functools import partial

import torchvision.transforms as T

__all__ = ["CIFAR10Policy", "ImageNetPolicy", "SVHNPolicy"]

ImageNetPolicy = partial(T.AutoAugment, T.AutoAugmentPolicy.IMAGENET)
CIFAR10Policy = partial(T.AutoAugment, T.AutoAugmentPolicy.CIFAR10)
SVHNPolicy = partial(T.AutoAugment, T.AutoAugmentPolicy.SVHN)
