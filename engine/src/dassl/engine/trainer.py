"""The trainer on labelled pictures: data, device, the loop over batches, evaluation, resuming."""

import datetime
import logging
import time
from pathlib import Path
from typing import Any

import torch
from dassl.data import DataManager
from dassl.engine.base import TrainerBase
from dassl.evaluation import build_evaluator
from dassl.utils import AverageMeter, MetricMeter, choose_device, load_checkpoint
from dassl.utils.torchtools import BEST
from torch import nn
from tqdm import tqdm
from yacs.config import CfgNode

__all__ = ["AverageMeter", "MetricMeter", "SummaryWriter", "TrainerX"]  # noqa: F822 - see __getattr__

logger = logging.getLogger(__name__)


def __getattr__(name: str) -> Any:
    """Import TensorBoard's writer, which projects import from here, only when asked for."""
    if name != "SummaryWriter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter


def _without_half_on_cpu(cfg: CfgNode, device: torch.device, own: str) -> CfgNode:
    """Return the config with fp16 replaced by fp32 on a CPU; warn of it in the node ``own``."""
    nodes = [name for name, node in cfg.TRAINER.items() if isinstance(node, CfgNode)]
    half = [name for name in nodes if cfg.TRAINER[name].get("PREC") == "fp16"]
    if device.type != "cpu" or not half:
        return cfg
    cfg, frozen = cfg.clone(), cfg.is_frozen()
    cfg.defrost()
    for name in half:
        cfg.TRAINER[name].PREC = "fp32"
    if own in half:
        logger.warning("TRAINER.%s.PREC fp16 is computed as fp32 on the CPU", own)
    if frozen:
        cfg.freeze()
    return cfg


class TrainerX(TrainerBase):
    """Trains on labelled pictures and evaluates; in ``self.cfg`` a CPU has PREC fp32, not fp16.

    A subclass defines ``build_model``, which builds and registers its models, and
    ``forward_backward``, which trains on a batch.
    """

    model: nn.Module
    optim: torch.optim.Optimizer
    batch_idx: int
    num_batches: int

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
        """Build ``self.dm`` and take over its loaders, classes and domains."""
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
        """Build and register the models."""
        raise NotImplementedError

    # Training

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
        """Return the validation result of the best model saved so far."""
        fpath = Path(directory) / self.get_model_names()[0] / BEST
        result = load_checkpoint(fpath).get("val_result") if fpath.is_file() else None
        return -float("inf") if result is None else float(result)

    def run_epoch(self) -> None:
        """Train on all batches, log the progress line and write the scalars."""
        self.set_model_mode("train")
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        loader, end = self.train_loader_x, time.time()
        for self.batch_idx, batch in enumerate(loader):
            self.num_batches = len(loader)  # a sampler knows it once a pass has begun
            data_time.update(time.time() - end)
            summary = self.forward_backward(batch)
            batch_time.update(time.time() - end)
            losses.update(summary)
            freq = self.cfg.TRAIN.PRINT_FREQ
            if (self.batch_idx + 1) % freq == 0 or self.num_batches < freq:
                logger.info("%s", self._progress_line(losses, batch_time, data_time))
            step = self.epoch * self.num_batches + self.batch_idx
            for name, meter in losses.meters.items():
                self.write_scalar(f"train/{name}", meter.avg, step)
            self.write_scalar("train/lr", self.get_current_lr(), step)
            end = time.time()

    def _progress_line(
        self, losses: MetricMeter, batch_time: AverageMeter, data_time: AverageMeter
    ) -> str:
        batches_left = self.num_batches * (self.max_epoch - self.epoch) - self.batch_idx - 1
        eta = datetime.timedelta(seconds=int(batch_time.avg * batches_left))
        return (
            f"epoch [{self.epoch + 1}/{self.max_epoch}] "
            f"batch [{self.batch_idx + 1}/{self.num_batches}] "
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) "
            f"data {data_time.val:.3f} ({data_time.avg:.3f}) "
            f"{losses} lr {self.get_current_lr():.4e} eta {eta}"
        )

    def forward_backward(self, batch: Any) -> Any:
        """Train on one batch and return its numbers by name."""
        raise NotImplementedError

    def parse_batch_train(self, batch: dict[str, Any]) -> Any:
        """Return pictures, labels and domains, on the device."""
        image, label, domain = (batch[key].to(self.device) for key in ("img", "label", "domain"))
        return image, label, domain

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
        """Evaluate the model that is wanted, unless NO_TEST, and log the time taken."""
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

    # Evaluation

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on val or test pictures: TEST.SPLIT, or ``split``. Without val pictures: test.

        Return the first result of the evaluator; accuracy in percent with Classification. Raises
        ValueError if the data set has no pictures to test on.
        """
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = self.cfg.TEST.SPLIT if split is None else split
        loader = self.val_loader if split == "val" else None
        if split == "val" and loader is None:
            logger.warning("There are no validation pictures; the test pictures are used instead")
        if loader is None:
            split, loader = "test", self.test_loader
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
