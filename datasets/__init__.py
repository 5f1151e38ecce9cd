"""The data sets; importing this package registers them with the engine."""

from datasets import benchmarks, emoji, fgvc_aircraft, folder, imagenet

__all__ = ["benchmarks", "emoji", "fgvc_aircraft", "folder", "imagenet"]
