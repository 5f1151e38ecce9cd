"""Evaluate a trainer's model, and say what the run was."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from dassl.data.datasets import DatasetBase
from dassl.evaluation import build_evaluator
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm
from yacs.config import CfgNode

from datasets.splits import select_labels
from runs import health, identity
from runs import parallel as distributed
from runs.data import ahead, changed, readable, upright
from runs.record import HALVES, write_config, write_predictions, write_results

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer

logger = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """What one pass over the pictures of a split found.

    Attributes:
        results: the evaluator's, by name.
        pairs: label and predicted label of every picture, in the order of the split.
        rate: images/s of the model alone, without reading and decoding; the median over batches.
    """

    results: dict[str, float]
    pairs: list[tuple[int, int]]
    rate: float


def pairs_of(output: Float[Tensor, "B C"], label: Int[Tensor, " B"]) -> list[tuple[int, int]]:
    """The label and the predicted label of each picture."""
    return list(zip(label.tolist(), output.argmax(dim=1).tolist(), strict=True))


class Half:
    """The base or the new classes of a run on all classes, evaluated among themselves.

    Args:
        cfg: of the run.
        classes: "base" or "new".
        class_names: of the run, by label.
    """

    def __init__(self, cfg: CfgNode, classes: str, class_names: list[str]) -> None:
        self.classes = classes
        self.labels = select_labels(range(len(class_names)), classes)
        self.class_names = [class_names[label] for label in self.labels]
        self.evaluator = build_evaluator(cfg, lab2cname=dict(enumerate(self.class_names)))
        self.pairs: list[tuple[int, int]] = []  # label and predicted label, in this half's numbers

    def process(self, output: Float[Tensor, "B C"], label: Int[Tensor, " B"]) -> None:
        """Take in the logits of all classes and the labels of a batch."""
        own = torch.tensor(self.labels, device=label.device)
        position = torch.full_like(output[0], -1, dtype=torch.long)
        position[own] = torch.arange(len(own), device=label.device)
        mine = position[label] >= 0
        output, label = output[mine][:, own], position[label[mine]]
        self.evaluator.process(output, label)
        self.pairs += pairs_of(output, label)

    def write(self, trainer: CLIPTrainer, found: dict[str, Any]) -> None:
        """Log the results, and write them to a folder of their own in the run's.

        Args:
            trainer: after `evaluate`.
            found: the record of the whole run.
        """
        if not self.pairs:
            return
        logger.info("Evaluate on the *test* set, %s classes among themselves", self.classes)
        results = self.evaluator.evaluate()
        own = {"classes": self.classes, "class_names": self.class_names}
        own |= {key: results[key] for key in ("accuracy", "macro_f1")}
        folder = Path(trainer.cfg.OUTPUT_DIR) / self.classes
        write_config(changed(trainer.cfg, "DATASET.SUBSAMPLE_CLASSES", self.classes), folder)
        write_predictions(folder, self.pairs)
        write_results(folder, found | own | {"n": len(self.pairs)})


@torch.no_grad()
def evaluate(
    trainer: CLIPTrainer, loader: Any, split: str, halves: Sequence[Half] = ()
) -> Evaluation:
    """One pass over the loader of a split.

    Args:
        trainer: whose model is evaluated.
        loader: of the split.
        split: its name.
        halves: see what the evaluator sees.

    Raises:
        ValueError: no picture can be read, or one cannot and none is to be skipped.
        FloatingPointError: scores are infinite or not a number.
    """
    trainer.set_model_mode("eval")
    trainer.evaluator.reset()
    rates: list[float] = []
    pairs: list[tuple[int, int]] = []
    # no bar where stderr is not a terminal
    for batch in tqdm(ahead(loader), total=len(loader), disable=None):
        batch = readable(trainer, batch, split)
        image, label = trainer.parse_batch_test(batch)
        if not len(image):
            continue
        start = time.perf_counter()
        with trainer.precision.autocast():
            output = trainer.model_inference(image)
        if image.is_cuda:
            torch.cuda.synchronize(image.device)
        rates.append(len(image) / (time.perf_counter() - start))
        health.require_finite_scores(trainer, output, batch)
        for one in (trainer.evaluator, *halves):
            one.process(output, label)
        pairs += pairs_of(output, label)
    if not rates:
        raise ValueError(f"{trainer.cfg.DATASET.NAME}, {split}: no picture can be read.")
    tell_turned(trainer, split)
    return Evaluation(trainer.evaluator.evaluate(), pairs, round(median(rates), 1))


def tell_turned(trainer: CLIPTrainer, split: str) -> None:
    """Say what became of the pictures whose EXIF data call for a turn."""
    if count := len(trainer.turned.get(split, ())):
        done = "turned upright" if upright(trainer.cfg) else "read as they are stored"
        logger.info(
            "%d pictures of %s have EXIF data that call for a turn: they were %s (INPUT.EXIF %s)",
            *(count, split, done, trainer.cfg.INPUT.EXIF),
        )


def test(trainer: CLIPTrainer, split: str | None) -> float:
    """Evaluate a split; None is the final evaluation, which writes results.json."""
    final = split is None
    if final and trainer.cfg.TEST.SPLIT == "val" and trainer.val_loader is None:
        raise ValueError(
            f"{trainer.cfg.DATASET.NAME} has no validation pictures (TEST.SPLIT val); TEST.SPLIT "
            "test evaluates its test pictures"
        )
    split = split or trainer.cfg.TEST.SPLIT
    split = "val" if split == "val" and trainer.val_loader is not None else "test"
    loader = trainer.val_loader if split == "val" else trainer.test_loader
    logger.info("Evaluate on the *%s* set", split)
    halves: list[Half] = []
    if final and trainer.reports_halves(trainer.cfg):
        halves = [Half(trainer.cfg, name, trainer.class_names) for name in HALVES]
    results, pairs, rate = evaluate(trainer, loader, split, halves)
    for name, value in results.items():
        trainer.write_scalar(f"{split}/{name}", value, trainer.epoch)
    if final:
        seen = len(loader.dataset) - len(trainer.unreadable.get(split, ()))
        found = record(trainer) | {"split": split, "n": seen}
        turned = len(trainer.turned.get(split, ()))
        found["exif"] = {"pictures": "upright" if upright(trainer.cfg) else "stored", split: turned}
        found |= {key: results[key] for key in ("accuracy", "macro_f1")}
        write_predictions(trainer.cfg.OUTPUT_DIR, pairs)
        found["images_per_s"] = rate
        for half in halves:
            half.write(trainer, found)
        path = write_results(trainer.cfg.OUTPUT_DIR, found)
        logger.info("Results written to %s", path)
    return next(iter(results.values()))


def record(trainer: CLIPTrainer) -> dict[str, Any]:
    """What a run is, for results.json."""
    cfg, learned = trainer.cfg, trainer.model.learned
    found = {
        "trainer": cfg.TRAINER.NAME,
        "dataset": identity.label(trainer),
        "dataset_name": cfg.DATASET.NAME,
        "data": getattr(trainer.dm.dataset, "digest", ""),
        "source": trainer.trained_on or identity.label(trainer),
        "classes": cfg.DATASET.SUBSAMPLE_CLASSES,
        "class_names": trainer.class_names,
        "shots": cfg.DATASET.NUM_SHOTS,
        "seed": cfg.SEED,
        "config": cfg.CONFIG_NAME,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "epoch": tested_epoch(trainer),
        "epoch_chosen_by": trainer.epoch_chosen_by,
        "epoch_chosen_on": chosen_on(trainer),
        "weights": trainer.weights,
        "settings": identity.settings(trainer),
        "learned_parameters": trainer.num_learned(),
        "learned": None if learned is None else identity.digest(learned),
        "processes": distributed.processes(),
    }
    if cfg.DATALOADER.SKIP_UNREADABLE:
        splits = ("train", "val", "test")
        found["unreadable"] = {split: len(trainer.unreadable.get(split, ())) for split in splits}
    if trainer.trained and (seen := trained_on_test(trainer.dm.dataset)):
        logger.warning("%d training pictures are test pictures: the accuracy says nothing", seen)
        found["trained_on_test_pictures"] = seen
    if trainer.transductive or trainer.reports_halves(cfg):
        found["transductive"] = "trained on unlabelled pictures of new classes, too"
    return found | {k: v for k, v in trainer.model.identity().items() if isinstance(v, str)}


def trained_on_test(dataset: DatasetBase) -> int:
    """Count the training pictures that are test pictures, too."""
    test = {item.impath for item in dataset.test or []}
    return sum(item.impath in test for item in dataset.train_x or [])


def chosen_on(trainer: CLIPTrainer) -> str:
    """The split whose pictures chose the epoch that is evaluated."""
    if trainer.epoch_chosen_by != "best_val":
        return "none"
    return "unknown" if trainer.chosen_elsewhere else "val"


def tested_epoch(trainer: CLIPTrainer) -> int:
    """The epoch whose weights are evaluated; 0 where nothing was trained."""
    if trainer.loaded_epoch is not None:
        return trainer.loaded_epoch
    return min(trainer.epoch + 1, trainer.max_epoch) if trainer.trained else 0
