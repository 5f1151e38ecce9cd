"""The data sets; importing this package registers them with the engine."""

from datasets import benchmarks, emoji, fgvc_aircraft, folder, imagenet
from datasets.base import FewShotDataset

__all__ = ["FewShotDataset", "benchmarks", "emoji", "fgvc_aircraft", "folder", "imagenet"]
