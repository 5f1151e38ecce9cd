"""As much of a config as a data set reads."""

from types import SimpleNamespace

from dassl.data.datasets import build_dataset

import datasets  # noqa: F401  (registers them)


class Config(dict):
    """A dictionary whose keys are attributes, too."""

    __getattr__ = dict.__getitem__


def make_cfg(root, name="", *, shots=-1, seed=1, subset="all", **others):
    dataset = Config(NAME=name, ROOT=str(root), NUM_SHOTS=shots, SUBSAMPLE_CLASSES=subset, **others)
    return SimpleNamespace(DATASET=dataset, SEED=seed, VERBOSE=False)


def build(name, root, **options):
    return build_dataset(make_cfg(root, name, **options))


def flat(items):
    return [(item.impath, item.label, item.classname) for item in items]
