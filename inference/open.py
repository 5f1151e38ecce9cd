"""Open a finished run: with its data set, or with class names alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dassl.data.datasets import build_dataset
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import read_json, set_random_seed
from yacs.config import CfgNode

from models.spotlighter import NEW_CLASSES
from runs import rng
from runs.checkpoint import find_checkpoint, read_checkpoint
from runs.config import read_run_config
from runs.record import RESULTS
from trainers.base import CLIPTrainer


def open_run(model_dir: str | Path, root: str = "") -> CLIPTrainer:
    """A trainer for evaluation, with its data set (`root`: if it moved); the run's seed is set."""
    cfg = config_of(model_dir, root)
    trainer = build(TRAINER_REGISTRY.get(cfg.TRAINER.NAME), cfg)
    trainer.load_model(str(model_dir))
    trainer.set_model_mode("eval")
    return trainer


def open_without_data(
    model_dir: str | Path, class_names: Sequence[str] | None = None, *, new: str = "",
    root: str = "", zero_shot: bool = False, plain: bool = False,
) -> CLIPTrainer:
    """The same without the data set: class names are enough to predict. No seed is set.

    Args:
        model_dir: the run's output folder.
        class_names: other classes than the run's own.
        new: how class names that were not in training are treated: auto, inherit, text or off; as
            the run's config says (TRAINER.SPOTLIGHTER.NEW) if empty.
        root: folder of all data sets; read only if the run does not say its class names.
        zero_shot: CLIP itself, without what the run learned, its pruning and its temperature.
        plain: float32 on the CPU, nothing compiled, whatever the config says.

    Raises:
        FileNotFoundError: the folder holds no run, or no checkpoint.
        ValueError: the checkpoint does not fit, `new` is unknown, or the run has a context for its
            own classes alone.
    """
    cfg = config_of(model_dir, root)
    cfg.VERBOSE = False
    if plain:
        cfg.USE_CUDA, cfg.MODEL.COMPILE = False, ""
        for node in filter(lambda node: isinstance(node, CfgNode), cfg.TRAINER.values()):
            node.PREC = "fp32"
    own = recorded_names(model_dir, cfg)
    if zero_shot:
        cfg.TRAINER.NAME, cfg.MODEL.PRUNE.AT, cfg.MODEL.PRUNE.KEEP = "ZeroshotCLIP", (), ()
        cfg.TEST.TEMPERATURE = 1.0  # that of the run was fitted to other logits
    names = list(class_names) if class_names is not None else own or names_of_the_data(cfg)
    with rng.unchanged():
        trainer = build(without_pictures(TRAINER_REGISTRY.get(cfg.TRAINER.NAME), names), cfg)
    if own and names != own and "class_names" in trainer.state.compatibility:
        raise ValueError(
            f"the run in {model_dir} learned a context for each of its {len(own)} classes "
            "(TRAINER.COOP.CSC True), and other classes have none; leave the class list out, or "
            "take a run with a shared context"
        )
    trainer.load_model(str(model_dir))
    if new:
        treat_new_classes(trainer, new)
    trainer.set_model_mode("eval")
    return trainer


def config_of(model_dir: str | Path, root: str) -> CfgNode:
    """The config of a run, with another root of the data sets unless that is empty."""
    cfg = read_run_config(model_dir)
    cfg.DATASET.ROOT = root or cfg.DATASET.ROOT
    cfg.FEATURES.KEEP = "off"  # a run of somebody else names no folder to write to
    return cfg


def build(kind: type[CLIPTrainer], cfg: CfgNode) -> CLIPTrainer:
    """A trainer, after the config's seed is set: a backbone of random weights is drawn again."""
    cfg.freeze()
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    return kind(cfg)


def without_pictures(kind: type[CLIPTrainer], class_names: list[str]) -> type[CLIPTrainer]:
    """The same trainer, with class names in place of a data set."""

    class WithoutPictures(kind):  # type: ignore[valid-type,misc]
        def build_data_loader(self) -> None:
            dataset = SimpleNamespace(classnames=class_names, all_class_names=class_names)
            self.dm: Any = SimpleNamespace(dataset=dataset)
            self.lab2cname = dict(enumerate(class_names))

    return WithoutPictures


def recorded_names(model_dir: str | Path, cfg: CfgNode) -> list[str]:
    """The classes that a run was trained on, from its checkpoint or its results; else none."""
    try:
        path = find_checkpoint(model_dir, TRAINER_REGISTRY.get(cfg.TRAINER.NAME).checkpoint_name)
    except FileNotFoundError:
        results = Path(model_dir) / RESULTS
        return list(read_json(results).get("class_names", ())) if results.is_file() else []
    return list((read_checkpoint(path).get("identity") or {}).get("class_names", ()))


def names_of_the_data(cfg: CfgNode) -> list[str]:
    """The class names of the run's data set; a FileNotFoundError if it is not there."""
    try:
        return list(build_dataset(cfg).classnames)
    except OSError as error:
        raise FileNotFoundError(
            "the run does not say what its classes are, and its data set cannot be read "
            f"({error}); give a class list (--classes), or the folder of the data sets (--root)"
        ) from error


def treat_new_classes(trainer: CLIPTrainer, new: str) -> None:
    """Choose how class names that were not in training are treated, or say why it is impossible."""
    if new not in NEW_CLASSES:
        raise ValueError(f"--new must be one of {', '.join(NEW_CLASSES)}, got {new!r}")
    head = trainer.model.head
    if head is None:
        raise ValueError(
            f"this is a run of {trainer.cfg.TRAINER.NAME}, which has no bank that new classes "
            "could inherit from; leave --new out"
        )
    head.options = replace(head.options, new=new)
