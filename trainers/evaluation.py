"""Evaluate a trainer's model, and say what the run was."""

from __future__ import annotations

import logging
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from dassl.data.datasets import DatasetBase
from tqdm import tqdm

from trainers import distributed
from trainers.pictures import ahead, readable
from trainers.run_record import write_predictions, write_results

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer

logger = logging.getLogger(__name__)


@torch.no_grad()
def evaluate(trainer: CLIPTrainer, loader: Any, split: str) -> tuple[dict[str, float], float]:
    """One pass over the loader of a split.

    Returns:
        The evaluator's results, and images/s of the model alone, without reading and decoding: the
        median over batches.

    Raises:
        ValueError: no picture can be read, or one cannot and none is to be skipped.
    """
    trainer.set_model_mode("eval")
    trainer.evaluator.reset()
    rates = []
    # no bar where stderr is not a terminal
    for batch in tqdm(ahead(loader), total=len(loader), disable=None):
        image, label = trainer.parse_batch_test(readable(trainer, batch, split))
        if not len(image):
            continue
        start = time.perf_counter()
        with trainer.precision.autocast():
            output = trainer.model_inference(image)
        if image.is_cuda:
            torch.cuda.synchronize(image.device)
        rates.append(len(image) / (time.perf_counter() - start))
        trainer.evaluator.process(output, label)
    if not rates:
        raise ValueError(f"{trainer.cfg.DATASET.NAME}, {split}: no picture can be read.")
    return trainer.evaluator.evaluate(), round(median(rates), 1)


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
    results, rate = evaluate(trainer, loader, split)
    for name, value in results.items():
        trainer.write_scalar(f"{split}/{name}", value, trainer.epoch)
    if final:
        seen = len(loader.dataset) - len(trainer.unreadable.get(split, ()))
        found = record(trainer) | {"split": split, "n": seen}
        found |= {key: results[key] for key in ("accuracy", "macro_f1")}
        write_predictions(trainer.cfg.OUTPUT_DIR, trainer.evaluator.pairs)
        path = write_results(trainer.cfg.OUTPUT_DIR, found | {"images_per_s": rate})
        logger.info("Results written to %s", path)
    return next(iter(results.values()))


def record(trainer: CLIPTrainer) -> dict[str, Any]:
    """What a run is, for results.json."""
    cfg = trainer.cfg
    found = {
        "trainer": cfg.TRAINER.NAME,
        "dataset": cfg.DATASET.NAME,
        "source": trainer.trained_on or cfg.DATASET.NAME,
        "classes": cfg.DATASET.SUBSAMPLE_CLASSES,
        "class_names": trainer.class_names,
        "shots": cfg.DATASET.NUM_SHOTS,
        "seed": cfg.SEED,
        "config": cfg.CONFIG_NAME,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "epoch": tested_epoch(trainer),
        "epoch_chosen_by": trainer.epoch_chosen_by,
        "epoch_chosen_on": chosen_on(trainer),
        "learned_parameters": trainer.num_learned(),
        "processes": distributed.processes(),
    }
    if cfg.DATALOADER.SKIP_UNREADABLE:
        splits = ("train", "val", "test")
        found["unreadable"] = {split: len(trainer.unreadable.get(split, ())) for split in splits}
    if trainer.trained and (seen := trained_on_test(trainer.dm.dataset)):
        logger.warning("%d training pictures are test pictures: the accuracy says nothing", seen)
        found["trained_on_test_pictures"] = seen
    if trainer.transductive:
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
