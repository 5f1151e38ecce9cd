"""The data sets; importing this package registers them with the engine."""

from datasets import benchmarks, emoji, folder, imagenet
from datasets.base import FewShotDataset

__all__ = ["FewShotDataset", "benchmarks", "emoji", "folder", "imagenet"]
