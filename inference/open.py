"""Open a finished run where its data set is not: config, class names and learned weights do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dassl.data.datasets import build_dataset
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import read_json, set_random_seed
from yacs.config import CfgNode

from datasets.pictures import open_picture
from models.spotlighter.memory import NEW_CLASSES
from runs import rng as random_states
from runs.checkpoint import find_checkpoint, read_checkpoint
from runs.config import read_run_config
from runs.record import RESULTS
from trainers.base import CLIPTrainer


def open_run(model_dir: str | Path, root: str = "") -> CLIPTrainer:
    """A trainer as the run left it, in evaluation mode.

    Args:
        model_dir: the run's output folder.
        root: folder of all data sets, where it has moved since.
    """
    cfg = read_run_config(model_dir)
    if root:
        cfg.DATASET.ROOT = root
    cfg.freeze()
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)  # a backbone of random weights is drawn again
    trainer = build_trainer(cfg)
    trainer.load_model(str(model_dir))
    trainer.set_model_mode("eval")
    return trainer


def open_without_data(
    model_dir: str | Path,
    class_names: Sequence[str] | None = None,
    *,
    new: str = "",
    root: str = "",
    zero_shot: bool = False,
    plain: bool = False,
) -> CLIPTrainer:
    """A trainer as the run left it, in evaluation mode, that knows class names and no pictures.

    The random generators of the process stay as they were.

    Args:
        model_dir: the run's output folder.
        class_names: other classes than the run's own.
        new: what those of them get that the bank has not seen: inherit, text or off; as the run's
            config says (TRAINER.SPOTLIGHTER.NEW) if empty.
        root: folder of all data sets; read only if nothing else tells the class names of the run.
        zero_shot: CLIP itself, without what the run learned and without its pruning.
        plain: float32 on the CPU, nothing compiled, whatever the config says.

    Raises:
        FileNotFoundError: the folder holds no run, or no checkpoint.
        ValueError: the checkpoint does not fit, `new` is unknown, or the run can meet no classes
            but its own.
    """
    cfg = read_run_config(model_dir)
    if root:
        cfg.DATASET.ROOT = root
    cfg.VERBOSE = False
    if plain:
        cfg.USE_CUDA, cfg.MODEL.COMPILE = False, ""
        for node in filter(lambda node: isinstance(node, CfgNode), cfg.TRAINER.values()):
            node.PREC = "fp32"
    own = recorded_names(model_dir, cfg)
    if zero_shot:
        cfg.TRAINER.NAME, cfg.MODEL.PRUNE.AT, cfg.MODEL.PRUNE.KEEP = "ZeroshotCLIP", (), ()
    cfg.freeze()
    names = list(class_names) if class_names is not None else own or names_of_the_data(cfg)
    before = random_states.capture()
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)  # a backbone of random weights is drawn again
    try:
        trainer: CLIPTrainer = without_pictures(TRAINER_REGISTRY.get(cfg.TRAINER.NAME), names)(cfg)
    finally:
        random_states.restore(before)
    if own and names != own and "class_names" in trainer.state.compatibility:
        raise ValueError(
            f"the run in {model_dir} learned a context for each of its {len(own)} classes "
            "(TRAINER.COOP.CSC True), and other classes have none; leave the class list out, or "
            "take a run with a shared context"
        )
    trainer.load_model(str(model_dir))
    treat_new_classes(trainer, new)
    trainer.set_model_mode("eval")
    return trainer


def without_pictures(kind: type[CLIPTrainer], class_names: list[str]) -> type[CLIPTrainer]:
    """The same trainer, except that it asks for no pictures."""

    class WithoutPictures(kind):  # type: ignore[valid-type,misc]
        def build_data_loader(self) -> None:
            dataset = SimpleNamespace(classnames=class_names, all_class_names=class_names)
            self.dm: Any = SimpleNamespace(dataset=dataset)
            self.lab2cname = dict(enumerate(class_names))
            self.num_classes = len(class_names)

    return WithoutPictures


def recorded_names(model_dir: str | Path, cfg: CfgNode) -> list[str]:
    """The classes that a run was trained on, as its checkpoint or its results say; else none."""
    try:
        path = find_checkpoint(model_dir, TRAINER_REGISTRY.get(cfg.TRAINER.NAME).checkpoint_name)
    except FileNotFoundError:
        results = Path(model_dir) / RESULTS
        return list(read_json(results).get("class_names", ())) if results.is_file() else []
    return list((read_checkpoint(path).get("identity") or {}).get("class_names", ()))


def names_of_the_data(cfg: CfgNode) -> list[str]:
    """The class names of the run's data set, read where it lies.

    Raises:
        FileNotFoundError: it is not there.
    """
    import datasets  # noqa: F401  (registers the data sets)

    try:
        return list(build_dataset(cfg).classnames)
    except OSError as error:
        raise FileNotFoundError(
            "the run does not say what its classes are, and its data set cannot be asked "
            f"({error}); give a class list (--classes), or the folder of the data sets (--root)"
        ) from error


def treat_new_classes(trainer: CLIPTrainer, new: str) -> None:
    """Say what classes get that the bank has not seen.

    Raises:
        ValueError: `new` is unknown, or there is no bank.
    """
    if not new:
        return
    if new not in NEW_CLASSES:
        raise ValueError(f"--new must be one of {', '.join(NEW_CLASSES)}, got {new!r}")
    head = trainer.model.head
    if head is None:
        name = trainer.cfg.TRAINER.NAME
        raise ValueError(
            f"this is a run of {name}, which has no bank that new classes could inherit from; "
            "leave --new out"
        )
    head.options = replace(head.options, new=new)


def for_predictor(trainer: CLIPTrainer) -> dict[str, Any]:
    """What a `inference.predictor.SpotlighterPredictor` is made of."""
    return {
        "model": trainer.model,
        "class_names": trainer.class_names,
        "read": partial(open_picture, upright=trainer.cfg.INPUT.EXIF != "stored"),
        "view": build_transform(trainer.cfg, is_train=False, choices=()),
        "transform": build_transform(trainer.cfg, is_train=False),
        "device": trainer.device,
        "autocast": trainer.state.precision.autocast,
    }
