"""Evaluate a model on a split, and write its results."""

import logging
import time
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from dassl.evaluation import build_evaluator
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm
from yacs.config import CfgNode

from datasets.splits import select_labels
from runs import features, health, identity, parallel
from runs.calibration import Calibration
from runs.data import none_readable, readable, to_device, upright
from runs.record import (
    Predicted,
    changed,
    write_config,
    write_logits,
    write_predictions,
    write_results,
)
from runs.state import RunState

logger = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """What one pass over the pictures of a split found."""

    results: dict[str, float]  # of the evaluator, by name
    pictures: list[Predicted]  # in the order of the split
    calibration: Calibration  # of the probabilities
    rate: float | None  # images/s of the model alone, without reading; the median over batches
    logits: list[np.ndarray]  # of each batch, where a fold is tested; no temperature divides them


def count(
    calibration: Calibration, output: Float[Tensor, "B C"], label: Int[Tensor, " B"],
    paths: Sequence[str],
) -> list[Predicted]:
    """Count the probabilities of a batch, and return what is predicted for each picture."""
    true, predicted = label.cpu().numpy(), output.argmax(dim=1).cpu().numpy()
    shares = np.exp(calibration.add(output.cpu().double().numpy(), true))
    rows = np.arange(len(true))
    columns = (true, predicted, np.asarray(paths, object), shares[rows, predicted])
    lists = [column.tolist() for column in (*columns, shares[rows, true])]
    return [Predicted(*row) for row in zip(*lists, strict=True)]


def log_figures(calibration: Calibration) -> None:
    """Log nll and ece in the form of the evaluator's lines, which stand above them."""
    found = calibration.figures()
    logger.info("* nll: %.4f\n* ece: %.2f%%", found["nll"], found["ece"])


class Half:
    """The base or the new classes (`classes`) of a run on all, evaluated among themselves."""

    def __init__(self, cfg: CfgNode, classes: str, class_names: list[str]) -> None:
        self.classes = classes
        self.labels = select_labels(range(len(class_names)), classes)
        self.class_names = [class_names[label] for label in self.labels]
        self.evaluator = build_evaluator(cfg, lab2cname=dict(enumerate(self.class_names)))
        self.pictures: list[Predicted] = []  # in this half's numbers
        self.calibration = Calibration(cfg.TEST.TEMPERATURE)

    def process(
        self, output: Float[Tensor, "B C"], label: Int[Tensor, " B"], paths: Sequence[str]
    ) -> None:
        """Take in the logits of all classes, the labels and the paths of a batch."""
        own = torch.tensor(self.labels, device=label.device)
        position = torch.full_like(output[0], -1, dtype=torch.long)
        position[own] = torch.arange(len(own), device=label.device)
        mine = position[label] >= 0
        output, label = output[mine][:, own], position[label[mine]]
        self.evaluator.process(output, label)
        own_paths = list(compress(paths, mine.tolist()))
        self.pictures += count(self.calibration, output, label, own_paths)

    def write(self, cfg: CfgNode, state: RunState, record: dict[str, Any]) -> None:
        """Log the results, and write them to a folder of their own in the run's."""
        if not self.pictures:
            return
        where = split_in_words(cfg, "test")
        logger.info("Evaluate on the *%s* set, %s classes among themselves", where, self.classes)
        results, folder = self.evaluator.evaluate(), Path(cfg.OUTPUT_DIR) / self.classes
        log_figures(self.calibration)
        keys = {"DATASET.SUBSAMPLE_CLASSES": self.classes, "DATASET.LABEL": state.label}
        write_config(changed(cfg, keys), folder)
        write_predictions(folder, self.pictures, self.class_names, cfg.DATASET.ROOT)
        own = {"classes": self.classes, "class_names": self.class_names, "n": len(self.pictures)}
        write_results(folder, record | own | figures(results) | self.calibration.record())


def figures(results: dict[str, float]) -> dict[str, float]:
    """What of an evaluator's results goes into results.json."""
    return {key: results[key] for key in ("accuracy", "macro_f1")}


def split_to_test(cfg: CfgNode, split: str | None, val_loader: Any) -> str:
    """The split to evaluate; test stands in for val where there are no validation pictures.

    Not in the final evaluation (`split` None): there TEST.SPLIT val is then a ValueError.
    """
    if split is None and cfg.TEST.SPLIT == "val" and val_loader is None:
        raise ValueError(
            f"{cfg.DATASET.NAME} has no validation pictures (TEST.SPLIT val); TEST.SPLIT test "
            "evaluates its test pictures"
        )
    wanted = split or cfg.TEST.SPLIT
    return "val" if wanted == "val" and val_loader is not None else "test"


def split_in_words(cfg: CfgNode, split: str) -> str:
    """A split as logs and results call it: "fold 1/4" where DATASET.FOLD stands in for test."""
    return f"fold {cfg.DATASET.FOLD}" if split == "test" and cfg.DATASET.FOLD else split


def logits_of(
    state: RunState, model: Any, batch: dict[str, Any], image: Any, rates: list[float]
) -> Float[Tensor, "B C"]:
    """The logits of a batch; `rates` gets the images/s, unless the store had the features."""
    start, are_pictures = time.perf_counter(), isinstance(image, Tensor)
    if state.store is not None:
        image = features.encode(state, model, image, model.patch_path)
    with state.precision.autocast():
        output = model(image)
    if output.is_cuda:
        torch.cuda.synchronize(output.device)
    if are_pictures:
        rates.append(len(output) / (time.perf_counter() - start))
    features.keep(state, batch, image)
    return output


@torch.no_grad()
def evaluate(
    cfg: CfgNode, state: RunState, model: nn.Module, loader: Any, evaluator: Any, split: str,
    halves: Sequence[Half],
) -> Evaluation:
    """One pass over the loader of a split; the `halves` count, too."""
    model.eval()
    evaluator.reset()
    rates: list[float] = []
    pictures: list[Predicted] = []
    logits: list[np.ndarray] = []
    calibration = Calibration(cfg.TEST.TEMPERATURE)
    batches = features.from_loader(state, model, loader, model.patch_path)
    for batch in tqdm(batches, total=len(loader), disable=None):  # no bar without a terminal
        batch = readable(cfg, state, batch, split)
        image, label = to_device(batch, state)
        if not len(label):
            continue
        output = logits_of(state, model, batch, image, rates)
        health.require_finite_scores(output, batch["impath"], state.precision.name)
        evaluator.process(output, label)
        for half in halves:
            half.process(output, label, batch["impath"])
        pictures += count(calibration, output, label, batch["impath"])
        if cfg.DATASET.FOLD:
            logits.append(output.float().cpu().numpy())
    if not pictures:
        raise none_readable(cfg, split)
    if turned := len(state.turned.get(split, ())):
        done = "they were turned upright" if upright(cfg) else "it was ignored, as CoOp does"
        logger.info(
            "%d pictures of %s have an EXIF rotation flag: %s (INPUT.EXIF %s)",
            *(turned, split, done, cfg.INPUT.EXIF),
        )
    results = evaluator.evaluate()
    log_figures(calibration)
    rate = round(median(rates), 1) if rates else None
    return Evaluation(results, pictures, calibration, rate, logits)


def write(
    cfg: CfgNode, state: RunState, model: Any, found: Evaluation, split: str, halves: Sequence[Half]
) -> None:
    """Write predictions.csv, logits.npy of a fold, results of the halves, and results.json last."""
    turned, split = len(state.turned.get(split, ())), split_in_words(cfg, split)
    record = describe(cfg, state, model, reports_halves=bool(halves))
    exif = {"pictures": "upright" if upright(cfg) else "stored", split: turned}
    record |= {"split": split, "n": len(found.pictures), "exif": exif}
    record |= figures(found.results) | found.calibration.record()
    if found.rate is not None:  # unknown where all features were kept
        record["images_per_s"] = found.rate
    write_predictions(cfg.OUTPUT_DIR, found.pictures, state.class_names, cfg.DATASET.ROOT)
    if found.logits:
        write_logits(cfg.OUTPUT_DIR, found.logits)
    for half in halves:
        half.write(cfg, state, record)
    logger.info("Results written to %s", write_results(cfg.OUTPUT_DIR, record))


def describe(cfg: CfgNode, state: RunState, model: Any, *, reports_halves: bool) -> dict[str, Any]:
    """What a run is, for results.json."""
    selects = state.selected_by == "best_val"
    found = {
        "trainer": cfg.TRAINER.NAME, "dataset": state.label, "dataset_name": cfg.DATASET.NAME,
        "data": getattr(state.dataset, "digest", ""), "source": state.source_dataset or state.label,
        "classes": cfg.DATASET.SUBSAMPLE_CLASSES, "class_names": state.class_names,
        "shots": cfg.DATASET.NUM_SHOTS, "seed": cfg.SEED, "config": cfg.CONFIG_NAME,
        "backbone": cfg.MODEL.BACKBONE.NAME, "epoch": tested_epoch(cfg, state),
        "epoch_chosen_by": state.selected_by,
        "epoch_chosen_on": "none" if not selects else "unknown" if state.foreign else "val",
        "weights": state.weights, "settings": identity.settings(cfg, state),
        "learned_parameters": state.num_learned,
        "train_s": None if state.train_s is None else round(state.train_s, 3),
        "train_clock": state.train_clock,
        "learned": None if state.learned is None else identity.digest(state.learned),
        "processes": parallel.processes(), "temperature": cfg.TEST.TEMPERATURE,
    }
    if cfg.TEST.TEMPERATURE_FITTED:  # another number for each seed and data set, of one experiment
        found["settings"]["TEST.TEMPERATURE"] = "fitted"
    if cfg.DATALOADER.SKIP_UNREADABLE:
        splits = ("train", "val", "test")
        found["unreadable"] = {split: len(state.unreadable.get(split, ())) for split in splits}
    test = {item.impath for item in state.dataset.test or ()}
    both = sum(item.impath in test for item in state.dataset.train_x or ())
    if state.trained and both:
        logger.warning("%d training pictures are test pictures, too: do not use the accuracy", both)
        found["trained_on_test_pictures"] = both
    if state.transductive or reports_halves:
        found["transductive"] = "trained on unlabelled pictures of new classes, too"
    return found | {k: v for k, v in model.identity().items() if isinstance(v, str)}


def tested_epoch(cfg: CfgNode, state: RunState) -> int:
    """The epoch whose weights are evaluated, counted from 1; 0 where nothing was trained."""
    if state.loaded_epoch is not None:
        return state.loaded_epoch
    return min(state.epoch + 1, cfg.OPTIM.MAX_EPOCH) if state.trained else 0
