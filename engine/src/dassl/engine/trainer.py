"""Trainers with data, device, evaluation, best model, resuming and the loop over batches."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from dassl.data import DataManager
from dassl.engine.base import TrainerBase
from dassl.evaluation import build_evaluator
from dassl.modeling import build_backbone, build_head
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import (
    AverageMeter,
    MetricMeter,
    check_availability,
    choose_device,
    count_num_param,
    load_checkpoint,
    load_pretrained_weights,
    mkdir_if_missing,
    resume_from_checkpoint,
    save_checkpoint,
    tolist_if_not,
)
from dassl.utils.checkpoint import BEST
from torch import nn
from tqdm import tqdm
from yacs.config import CfgNode

__all__ = [
    "AverageMeter",
    "DataManager",
    "MetricMeter",
    "SimpleNet",
    "SimpleTrainer",
    "SummaryWriter",  # noqa: F822 - see __getattr__
    "TrainerBase",
    "TrainerX",
    "TrainerXU",
    "build_backbone",
    "build_evaluator",
    "build_head",
    "build_lr_scheduler",
    "build_optimizer",
    "count_num_param",
    "load_checkpoint",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "resume_from_checkpoint",
    "save_checkpoint",
    "tolist_if_not",
]

logger = logging.getLogger(__name__)


def __getattr__(name: str) -> Any:
    """Import TensorBoard's writer, which projects take from here, for whoever asks for it."""
    if name != "SummaryWriter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter


def _without_half_on_cpu(cfg: CfgNode, device: torch.device, own: str) -> CfgNode:
    """Return the config with fp16 replaced by fp32 where the CPU would have to compute it.

    Args:
        cfg: The whole config.
        device: Where the trainer computes.
        own: The node under TRAINER whose change is worth a warning.
    """
    nodes = [name for name, node in cfg.TRAINER.items() if isinstance(node, CfgNode)]
    half = [name for name in nodes if cfg.TRAINER[name].get("PREC") == "fp16"]
    if device.type != "cpu" or not half:
        return cfg
    cfg, frozen = cfg.clone(), cfg.is_frozen()
    cfg.defrost()
    for name in half:
        cfg.TRAINER[name].PREC = "fp32"
        if name == own:
            logger.warning("TRAINER.%s.PREC fp16 is computed as fp32 on the CPU", name)
    if frozen:
        cfg.freeze()
    return cfg


class SimpleNet(nn.Module):
    """A backbone, a head if the config names one, and a linear classifier.

    Args:
        cfg: The whole config.
        model_cfg: The node ``cfg.MODEL``, or one of its form.
        num_classes: Outputs of the classifier; 0: the features are returned.
        kwargs: For the backbone and the head.
    """

    def __init__(self, cfg: CfgNode, model_cfg: CfgNode, num_classes: int, **kwargs: Any) -> None:
        super().__init__()
        backbone, head = model_cfg.BACKBONE, model_cfg.HEAD
        options = {"verbose": cfg.VERBOSE, **kwargs}
        self.backbone = build_backbone(backbone.NAME, pretrained=backbone.PRETRAINED, **options)
        self.fdim = int(self.backbone.out_features)
        self.head = None
        if head.NAME and head.HIDDEN_LAYERS:
            names = ("HIDDEN_LAYERS", "ACTIVATION", "BN", "DROPOUT")
            options |= {name.lower(): head[name] for name in names}
            self.head = build_head(head.NAME, in_features=self.fdim, **options)
            self.fdim = self.head.out_features
        self.classifier = nn.Linear(self.fdim, num_classes) if num_classes > 0 else None

    def forward(self, x: torch.Tensor, return_feature: bool = False) -> Any:
        """Return scores (B, C), with the features (B, fdim) if wanted."""
        features = self.backbone(x)
        if self.head is not None:
            features = self.head(features)
        if self.classifier is None:
            return features
        scores = self.classifier(features)
        return (scores, features) if return_feature else scores


class SimpleTrainer(TrainerBase):
    """Data, device, evaluation, best model and resuming; the loop over batches is left out.

    A subclass builds and registers its models in ``build_model``; otherwise it is a SimpleNet.

    Args:
        cfg: The whole config; ``self.cfg`` says fp32 where fp16 would meet a CPU.
    """

    model: nn.Module

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.device = choose_device(cfg.USE_CUDA)
        own = getattr(self, "node", cfg.TRAINER.NAME.upper())
        cfg = _without_half_on_cpu(cfg, self.device, own)
        self.check_cfg(cfg)
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        self.best_result = -float("inf")
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)

    def check_cfg(self, cfg: CfgNode) -> None:
        """Refuse a config that the trainer cannot work with; nothing is refused here."""

    def build_data_loader(self) -> None:
        """Build ``self.dm`` and take its loaders and facts over."""
        dm = DataManager(self.cfg)
        self.train_loader_x: Any = dm.train_loader_x
        self.train_loader_u: Any = dm.train_loader_u
        self.val_loader: Any = dm.val_loader
        self.test_loader: Any = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.dm = dm

    def build_model(self) -> None:
        """Build and register the models; here, a SimpleNet."""
        cfg = self.cfg
        self.model = SimpleNet(cfg, cfg.MODEL, self.num_classes)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        logger.info("# params: %s", f"{count_num_param(self.model):,}")
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("model", self.model, self.optim, self.sched)

    def train(self) -> None:  # type: ignore[override]
        """Train from the first epoch, or the one to resume at, to OPTIM.MAX_EPOCH."""
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self) -> None:
        """Resume from RESUME or OUTPUT_DIR if there is a checkpoint, and open TensorBoard."""
        directory = self.cfg.RESUME or self.cfg.OUTPUT_DIR
        self.start_epoch = self.resume_model_if_exist(directory)
        if self.start_epoch > 0:
            self.best_result = max(self.best_result, self._best_result_in(directory))
        self.init_writer(Path(self.output_dir) / "tensorboard")
        self.time_start = time.time()

    def _best_result_in(self, directory: str | Path) -> float:
        """Return the validation result of the best model saved so far, so that it stays the bar."""
        fpath = Path(directory) / self.get_model_names()[0] / BEST
        result = load_checkpoint(fpath).get("val_result") if fpath.is_file() else None
        return -float("inf") if result is None else float(result)

    def after_epoch(self) -> None:
        """Evaluate on val if the best model is wanted, and save when it is due."""
        done = self.epoch + 1
        freq = self.cfg.TRAIN.CHECKPOINT_FREQ
        if self.cfg.TEST.FINAL_MODEL == "best_val" and not self.cfg.TEST.NO_TEST:
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name=BEST)
        if done == self.max_epoch or (freq > 0 and done % freq == 0):
            self.save_model(self.epoch, self.output_dir)

    def after_train(self) -> None:
        """Evaluate the model that is wanted, unless NO_TEST, and say how long it took."""
        logger.info("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                logger.info("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                logger.info("Deploy the last-epoch model")
            self.test()
        elapsed = datetime.timedelta(seconds=round(time.time() - self.time_start))
        logger.info("Elapsed: %s", elapsed)
        self.close_writer()

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on val or test pictures.

        Args:
            split: ``val`` or ``test``; none: TEST.SPLIT. Without validation pictures: test.

        Returns:
            The first result of the evaluator; accuracy in percent with Classification.

        Raises:
            ValueError: If the data set has no pictures to test on.
        """
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = self.cfg.TEST.SPLIT if split is None else split
        if split == "val" and self.val_loader is None:
            logger.warning("There are no validation pictures; the test pictures stand for them")
        split = "val" if split == "val" and self.val_loader is not None else "test"
        loader = self.val_loader if split == "val" else self.test_loader
        if loader is None:
            raise ValueError(f"{self.cfg.DATASET.NAME} has no test pictures to evaluate on")
        logger.info("Evaluate on the *%s* set", split)
        for batch in tqdm(loader, disable=None):  # None: no bar where stderr is not a terminal
            image, label = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(image), label)
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        return float(next(iter(results.values())))

    def model_inference(self, input: torch.Tensor) -> Any:
        """Compute the scores of a batch with ``self.model``."""
        return self.model(input)

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pictures and the labels of a batch, on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)


class _Progress:
    """Times and losses of an epoch, for the progress line."""

    def __init__(self) -> None:
        self.losses = MetricMeter()
        self.batch_time = AverageMeter()
        self.data_time = AverageMeter()
        self.mark = time.time()

    def data_ready(self) -> None:
        self.data_time.update(time.time() - self.mark)

    def batch_done(self, losses: dict[str, float] | None) -> None:
        self.batch_time.update(time.time() - self.mark)
        self.losses.update(losses or {})


class _LoopTrainer(SimpleTrainer):
    """The part of an epoch that does not depend on what a batch is."""

    batch_idx: int
    num_batches: int

    def _batches(self) -> Iterator[tuple[Any, ...]]:
        """Set ``num_batches``, then yield the arguments of ``forward_backward``."""
        raise NotImplementedError

    def run_epoch(self) -> None:
        """Train on all batches, log the progress line and write the scalars."""
        self.set_model_mode("train")
        progress = _Progress()
        batches = self._batches()
        for self.batch_idx, batch in enumerate(batches):
            progress.data_ready()
            progress.batch_done(self.forward_backward(*batch))
            self._report(progress)
            progress.mark = time.time()

    def _report(self, progress: _Progress) -> None:
        freq = self.cfg.TRAIN.PRINT_FREQ
        if (self.batch_idx + 1) % freq == 0 or self.num_batches < freq:
            logger.info("%s", self._progress_line(progress))
        step = self.epoch * self.num_batches + self.batch_idx
        for name, meter in progress.losses.meters.items():
            self.write_scalar(f"train/{name}", meter.avg, step)
        self.write_scalar("train/lr", self.get_current_lr(), step)

    def _progress_line(self, progress: _Progress) -> str:
        epochs_left = self.max_epoch - self.epoch - 1
        batches_left = self.num_batches * (epochs_left + 1) - self.batch_idx - 1
        eta = datetime.timedelta(seconds=int(progress.batch_time.avg * batches_left))
        batch_time, data_time = progress.batch_time, progress.data_time
        return (
            f"epoch [{self.epoch + 1}/{self.max_epoch}] "
            f"batch [{self.batch_idx + 1}/{self.num_batches}] "
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) "
            f"data {data_time.val:.3f} ({data_time.avg:.3f}) "
            f"{progress.losses} lr {self.get_current_lr():.4e} eta {eta}"
        )


class TrainerX(_LoopTrainer):
    """Training on labelled pictures: ``forward_backward(batch_x)``."""

    def _batches(self) -> Iterator[tuple[Any, ...]]:
        for batch in self.train_loader_x:
            self.num_batches = len(self.train_loader_x)  # a sampler knows it once a pass has begun
            yield (batch,)

    def parse_batch_train(self, batch: dict[str, Any]) -> Any:
        """Return pictures, labels and domains, on the device."""
        image, label, domain = (batch[key].to(self.device) for key in ("img", "label", "domain"))
        return image, label, domain


class TrainerXU(_LoopTrainer):
    """Training on labelled and unlabelled pictures: ``forward_backward(batch_x, batch_u)``.

    TRAIN.COUNT_ITER says which loader counts the batches of an epoch: ``train_x``, ``train_u`` or
    ``smaller_one``. The other one starts anew when it is through.
    """

    def _batches(self) -> Iterator[tuple[Any, ...]]:
        if self.train_loader_u is None:
            raise ValueError(f"{self.cfg.DATASET.NAME} has no unlabelled pictures (train_u)")
        n_x, n_u = len(self.train_loader_x), len(self.train_loader_u)
        counts = {"train_x": n_x, "train_u": n_u, "smaller_one": min(n_x, n_u)}
        check_availability(self.cfg.TRAIN.COUNT_ITER, counts, "count (TRAIN.COUNT_ITER)")
        self.num_batches = counts[self.cfg.TRAIN.COUNT_ITER]
        batches = _Endless(self.train_loader_x), _Endless(self.train_loader_u)
        for _ in range(self.num_batches):
            yield tuple(next(one) for one in batches)

    def parse_batch_train(self, batch_x: dict[str, Any], batch_u: dict[str, Any]) -> Any:
        """Return labelled pictures, their labels, and unlabelled pictures, on the device."""
        image, label = (batch_x[key].to(self.device) for key in ("img", "label"))
        return image, label, batch_u["img"].to(self.device)


class _Endless:
    """The batches of a loader, begun at once, and anew when it is through."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.batches = loader, iter(loader)

    def __next__(self) -> Any:
        try:
            return next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            return next(self.batches)
