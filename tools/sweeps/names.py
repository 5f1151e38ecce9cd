"""Data sets, trainers and configs by name, as the files in configs/ say."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
CONFIGS = Path("configs")  # below PROJECT

EMBEDDED = "tiny_emoji"
OWN, OWN_STEM = "Folder", "folder"  # the user's own pictures, by DATASET.NAME and by yaml
DEFAULT_CONFIGS = {
    "CoOp": "vit_b16_ep50_ctxv1",
    "CoCoOp": "vit_b16_c4_ep10_batch1_ctxv1",
    "MaPLe": "vit_b16_c2_ep5_batch4_2ctx",
    "IVLP": "vit_b16_c2_ep5_batch4_2+2ctx",
    "VPT": "vit_b16_c2_ep5_batch4_4",
    "PromptSRC": "vit_b16_c2_ep20_batch4_4+4ctx",
    "PromptKD": "vit_b16_c2_ep20_batch8_4+4ctx",
    "TextRefiner": "vit_b16_ep10_ctxv1",
    "Spotlighter": "vit_b16_ep20_ctxv1",
}
# Where the literature trains otherwise for a protocol; (protocol, trainer).
PROTOCOL_CONFIGS = {
    ("xd", "MaPLe"): "vit_b16_c2_ep5_batch4_2ctx_cross_datasets",
    ("xd", "PromptSRC"): "vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets",
    ("fewshot", "PromptSRC"): "vit_b16_c2_ep50_batch4_4+4ctx_few_shot",
}
# CoOp (Zhou et al., IJCV 2022) trains longer on more shots; 200 epochs on 8 and 16.
COOP_EPOCHS = {1: "vit_b16_ep50", 2: "vit_b16_ep100", 4: "vit_b16_ep100"}


def stems(folder: Path) -> list[str]:
    """Names of the yaml files in a folder below the project, sorted."""
    return sorted(path.stem for path in (PROJECT / folder).glob("*.yaml"))


def trainers() -> list[str]:
    """Trainers that have configs."""
    return sorted(p.name for p in (PROJECT / CONFIGS / "trainers").iterdir() if p.is_dir())


def dataset_name(stem: str) -> str:
    """DATASET.NAME of a data set's yaml."""
    return str(read_yaml(CONFIGS / "datasets" / f"{stem}.yaml")["DATASET"]["NAME"])


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a yaml below the project."""
    return yaml.safe_load((PROJECT / path).read_text(encoding="utf-8")) or {}


@cache
def read_data(name: str, root: Path, label: str = "") -> Any:
    """A data set, read for its label and its digest.

    Args:
        name: DATASET.NAME.
        root: DATASET.ROOT.
        label: DATASET.LABEL; "" for the data's own.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged.
    """
    from dassl.config import get_cfg_default
    from dassl.data.datasets import build_dataset

    import datasets  # noqa: F401  (registers the data sets)

    cfg = get_cfg_default()
    cfg.VERBOSE, cfg.DATASET.NAME, cfg.DATASET.ROOT = False, name, str(root)
    cfg.DATASET.LABEL = label
    return build_dataset(cfg)


@cache
def digest_of(name: str, root: Path) -> str:
    """The digest of a data set as it is now; "" where it is not there, or would take long to read.

    Read are the user's own pictures, and benchmarks that have a split file.
    """
    from dassl.data.datasets import DATASET_REGISTRY

    import datasets  # noqa: F401  (registers the data sets)

    try:
        kind = DATASET_REGISTRY.get(name)
        split = getattr(kind, "split_file", "")
        if name == OWN or (split and (root / kind.dataset_dir / split).is_file()):
            return str(getattr(read_data(name, root), "digest", ""))
    except (OSError, ValueError, LookupError):
        pass  # train.py says it better
    return ""


def is_embedded(dataset: str) -> bool:
    """Whether the pictures of a data set (a stem) are drawn by this project."""
    return dataset.startswith("emoji_")


def default_config(protocol: str, trainer: str, dataset: str, shots: int) -> str:
    """The config to take where none is named: the tiny CLIP's, or the published ViT-B/16's."""
    if is_embedded(dataset):
        return EMBEDDED
    if (protocol, trainer) == ("fewshot", "CoOp"):
        return COOP_EPOCHS.get(shots, "vit_b16")
    protocol = "xd" if protocol == "dg" else protocol
    return PROTOCOL_CONFIGS.get((protocol, trainer), DEFAULT_CONFIGS.get(trainer, "vit_b16"))


def check_dataset(dataset: str) -> None:
    """Refuse a data set without a yaml.

    Raises:
        ValueError: names those there are.
    """
    known = stems(CONFIGS / "datasets")
    if dataset not in known:
        raise ValueError(f"no data set {dataset}; there are: {' '.join(known)}")


def check_config(trainer: str, config: str) -> None:
    """Refuse a trainer or a config that is not there.

    Raises:
        ValueError: names those there are.
    """
    if trainer not in trainers():
        raise ValueError(f"no trainer {trainer}; there are: {' '.join(trainers())}")
    known = stems(CONFIGS / "trainers" / trainer)
    if config not in known:
        raise ValueError(f"no config {config} for {trainer}; there are: {' '.join(known)}")
