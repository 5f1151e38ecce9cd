"""The data sets; importing this package registers them with the engine."""

from datasets import benchmarks, fgvc_aircraft, imagenet

__all__ = ["benchmarks", "fgvc_aircraft", "imagenet"]
