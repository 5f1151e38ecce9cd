"""Data sets, trainers and configs by name, as configs/ lists them; shots in words."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
CONFIGS = Path("configs")  # below PROJECT
OWN, OWN_STEM = "Folder", "folder"  # the user's own pictures, by DATASET.NAME and by yaml


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the content of a yaml file, by its path below the project."""
    return yaml.safe_load((PROJECT / path).read_text(encoding="utf-8")) or {}


def stems(folder: Path) -> list[str]:
    """Return the names of the yaml files in a folder below the project, sorted."""
    return sorted(path.stem for path in (PROJECT / folder).glob("*.yaml"))


def dataset_name(stem: str) -> str:
    """Return DATASET.NAME of a data set's yaml."""
    return str(read_yaml(CONFIGS / "datasets" / f"{stem}.yaml")["DATASET"]["NAME"])


def is_embedded(dataset: str) -> bool:
    """Whether this project draws the pictures of a data set (a stem)."""
    return dataset.startswith("emoji_")


def shots_in_words(shots: int) -> str:
    """Training pictures of each class as a reader understands them: below 0 they are all."""
    return "all pictures" if shots < 0 else "1 shot" if shots == 1 else f"{shots} shots"


@cache
def read_data(name: str, root: Path, label: str = "") -> Any:
    """Build a data set for its label and digest, from DATASET.NAME, .ROOT and .LABEL."""
    from dassl.config import get_cfg_default
    from dassl.data.datasets import build_dataset

    import datasets  # noqa: F401  (registers the data sets)

    cfg = get_cfg_default()
    cfg.VERBOSE, cfg.DATASET.LABEL = False, label
    cfg.DATASET.NAME, cfg.DATASET.ROOT = name, str(root)
    return build_dataset(cfg)


@cache
def digest_of(name: str, root: Path) -> str:
    """Return the digest of own pictures, or of a benchmark with a split file; "" of others."""
    from dassl.data.datasets import DATASET_REGISTRY

    import datasets  # noqa: F401  (registers the data sets)

    try:
        kind = DATASET_REGISTRY.get(name)
        split = getattr(kind, "split_file", "")
        if name == OWN or (split and (root / kind.dataset_dir / split).is_file()):
            return str(getattr(read_data(name, root), "digest", ""))
    except (OSError, ValueError, LookupError):
        pass  # train.py reports it better
    return ""


@cache
def default_rows() -> dict[str, dict[str, Any]]:
    """Return the rows of configs/trainers/defaults.yaml by trainer, in the order of the tables."""
    return read_yaml(CONFIGS / "trainers" / "defaults.yaml")


def default_config(protocol: str, trainer: str, dataset: str, shots: int) -> str:
    """Return the config that a trainer takes where none is named."""
    row = default_rows().get(trainer, {"tiny": "tiny_emoji", "vit_b16": "vit_b16"})
    if is_embedded(dataset):
        return row["tiny"]
    found = row.get("xd" if protocol == "dg" else protocol, row["vit_b16"])
    return found if isinstance(found, str) else found.get(shots, found["other"])


def check_dataset(dataset: str) -> None:
    """Raise a ValueError for a data set without a yaml."""
    _check(f"data set {dataset}", dataset, stems(CONFIGS / "datasets"))


def check_config(trainer: str, config: str) -> None:
    """Raise a ValueError for a trainer or a config that does not exist."""
    folders = (path for path in (PROJECT / CONFIGS / "trainers").iterdir() if path.is_dir())
    _check(f"trainer {trainer}", trainer, sorted(path.name for path in folders))
    _check(f"config {config} for {trainer}", config, stems(CONFIGS / "trainers" / trainer))


def _check(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(f"no {what}; there are: {' '.join(known)}")
