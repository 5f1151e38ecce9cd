"""What all CLIP trainers share: load, freeze, optimise, precision; evaluation and checkpoints."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from dassl.data import DataManager
from dassl.engine import TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import count_num_param
from torch import Tensor, nn
from yacs.config import CfgNode

from datasets.subsets import picture_digest
from models.classifier import CLIPClassifier
from runs import checkpoint, health, identity
from runs import data as calibration
from runs import data as pictures
from runs import evaluate as evaluation
from runs import parallel as data_parallel
from runs import parallel as distributed
from runs import record as run_record
from runs import resume as resuming
from runs import watch as live_logs
from runs.average import EpochAverage
from runs.backbone import checked, load_backbone
from runs.precision import Precision
from runs.rng import WorkerStates
from trainers.published import RENAMED, to_our_names
from trainers.settings import Run, Settings, add_settings, log_unused_context, read_settings


class PromptTuner(TrainerX):
    """A trainer is a `Settings` class, a config node, and `build`.

    Attributes:
        learns: whether there is anything to train.
        takes_head: whether a Spotlighter head can stand on its tuner.
    """

    node: str
    settings_class: type[Settings]
    learns = True
    takes_head = False
    settings: Any

    @classmethod
    def extend_cfg(cls, cfg: CfgNode) -> None:
        """Add this trainer's keys, with their defaults, to a config."""
        add_settings(cfg, cls.node, cls.settings_class)

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: Any, run: Run
    ) -> CLIPClassifier:
        """The model: images -> logits, with the trainable part under `.learned`."""
        raise NotImplementedError

    @classmethod
    def model_classes(cls, run: Run) -> list[str]:
        """The classes that the model knows; those of the run, if the trainer does not say more."""
        return list(run.dataset.classnames)

    @classmethod
    def epoch_weights(cls, settings: Any, epochs: int) -> Tensor | None:
        """Weights of a mean of the parameters over epochs; None for the last epoch's."""
        return None

    @classmethod
    def reports_halves(cls, cfg: CfgNode) -> bool:
        """Whether a run on all classes is evaluated on base and on new classes, too."""
        return False

    @property
    def tuner(self) -> tuple[type[PromptTuner], Any]:
        """Whose prompts are tuned, and its settings: this trainer, or the base of a head."""
        return type(self), self.settings

    def build_clip(self, tuner: CLIPClassifier) -> nn.Module:
        """The model of this trainer: the tuner, or a head on it."""
        return tuner

    def check_cfg(self, cfg: CfgNode) -> None:
        """Read and check the settings before anything is loaded."""
        self.settings = read_settings(cfg, self.node, self.settings_class)


logger = logging.getLogger(__name__)


class CLIPTrainer(PromptTuner):
    """Trains what a `PromptTuner` declares.

    The model says what its loss is and what it remembers after a step. Exactly one module, the
    model's `learned`, is registered and saved.
    """

    checkpoint_name = "prompt_learner"
    trained = chosen_elsewhere = False  # whether another project chose the epoch
    loaded_epoch: int | None = None
    trained_on = ""  # the data set that loaded weights come from, where it is another run's
    trained_settings: dict[str, Any] | None = None  # what loaded weights were learned with
    average: EpochAverage | None = None
    best_epoch = 0  # the best on validation pictures so far, counted from 1

    def build_data_loader(self) -> None:
        """Build the loaders; best_val without a validation split of its own becomes last_step."""
        with distributed.main_first():
            self.dm = dm = DataManager(self.cfg, dataset_wrapper=pictures.KeptPictures)
        self.train_loader_x, self.train_loader_u = dm.train_loader_x, dm.train_loader_u
        self.val_loader, self.test_loader = dm.val_loader, dm.test_loader
        self.num_classes, self.lab2cname = dm.num_classes, dm.lab2cname
        self.num_source_domains = dm.num_source_domains
        self.cfg = pictures.changed(self.cfg, "DATASET.LABEL", identity.label(self))
        self.final_model = self.cfg.TEST.FINAL_MODEL  # as it was asked for
        self.unreadable: dict[str, set[str]] = {}  # what was skipped, by split
        self.turned: dict[str, set[int]] = {}  # whose EXIF data call for a turn, by split
        self.cfg, self.epoch_chosen_by = pictures.who_chooses_the_epoch(self.cfg, self.dm.dataset)
        self.transductive = getattr(self.tuner[1], "TRANSDUCTIVE", False)
        if self.transductive:
            self.train_loader_x = pictures.loader_of_all_classes(self.cfg)
        data_parallel.deal_out(self.train_loader_x)

    def build_model(self) -> None:
        """Load CLIP, build the model on it, register what is learned."""
        cfg = self.cfg
        (tuner, settings), run = self.tuner, Run(cfg, self.dm.dataset)
        names = tuner.model_classes(run)
        logger.info("Loading CLIP (backbone: %s)", cfg.MODEL.BACKBONE.NAME)
        clip = load_backbone(cfg.MODEL, cfg.INPUT)
        self.class_names = checked(self.dm.dataset.classnames, clip)
        self.weights = identity.digest(clip)
        tuned = calibration.prepare(tuner.build(clip, names, settings, run), cfg.MODEL)
        self.model = self.build_clip(tuned).to(self.device)
        self.precision = Precision(self.settings.PREC, self.model, self.device)
        learned = self.model.learned
        if learned is None:
            return
        if (weights := tuner.epoch_weights(settings, cfg.OPTIM.MAX_EPOCH)) is not None:
            self.average = EpochAverage(learned, weights)
        self.optim = build_optimizer(learned, cfg.OPTIM, param_groups=self.parameter_groups())
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model(self.checkpoint_name, learned, self.optim, self.sched)
        self.step = data_parallel.stepper(self.model)
        logger.info("Learned parameters: %s", f"{self.num_learned():,}")
        for node, read in self.settings_read().items():
            log_unused_context(node, read, identity.context_length(learned))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters to train, in groups for the optimiser."""
        return [{"params": [p for p in self.model.learned.parameters() if p.requires_grad]}]

    @cached_property
    def training_pictures(self) -> str:
        """Digest of what the training and validation pictures hold."""
        dataset = self.dm.dataset
        return picture_digest([*(dataset.train_x or ()), *(dataset.val or ())])

    def num_learned(self) -> int:
        """Trainable scalars."""
        return count_num_param(self.model.learned) if self.model.learned is not None else 0

    def before_train(self) -> None:
        """Begin with MODEL.INIT_WEIGHTS, resume if there is something, else learn what to prune."""
        self.workers = WorkerStates()
        health.require_pairs(self)
        if self.cfg.MODEL.INIT_WEIGHTS:
            checkpoint.start_from(self, Path(self.cfg.MODEL.INIT_WEIGHTS))
        super().before_train()
        resuming.begin(self)
        calibration.calibrate_pruner(self)
        data_parallel.draw_apart(self)

    def init_writer(self, log_dir: Any) -> None:
        """Open the logs that can be watched, in one process; see `runs.watch`."""
        if distributed.is_main():
            live_logs.make_ready(self, Path(log_dir))
            super().init_writer(log_dir)
            self._writer = live_logs.with_wandb(self, self._writer)

    def set_model_mode(self, mode: str = "train", names: Any = None) -> None:
        """Set the whole model's mode, so that it forgets what it kept for an evaluation."""
        super().set_model_mode(mode, names)
        self.model.train(mode == "train")

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Images and labels on the device."""
        batch = pictures.readable_for_training(self, batch)
        return batch["img"].to(self.device, non_blocking=True), batch["label"].to(self.device)

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float]:
        """One optimiser step; returns the loss, its parts and the batch accuracy in percent."""
        self.workers.note(batch)
        with self.precision.autocast():
            step = self.step(*self.parse_batch_train(batch))
            total = torch.stack(list(step.losses.values())).sum()
        self.precision.descend(self, total)
        self.model.remember(data_parallel.gathered(step))
        summary = health.numbers_of_step(self, batch, step, total)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return summary

    def after_epoch(self) -> None:
        """Count the epoch's parameters where they are averaged, then evaluate and save."""
        data_parallel.agree(self.model.learned)
        if self.average is not None:
            self.average.add(self.epoch)
        if self.epoch + 1 == self.max_epoch:
            self.finish()
        live_logs.note_epoch(self, self._writer)
        super().after_epoch()
        if self.cfg.TRAIN.CHECKPOINT_FREQ < 0 and self.epoch + 1 < self.max_epoch:
            self.save_model(self.epoch, self.output_dir)

    def finish(self) -> None:
        """After the last step, before anything is saved."""
        if self.average is not None:
            self.average.install()
        if self.cfg.TRAINER.NAME in RENAMED:
            logger.info(
                "The authors' code of %s reads checkpoints of this run after "
                "tools/convert_checkpoint.py; without it, it loads nothing and does not say so",
                self.cfg.TRAINER.NAME,
            )

    def own_identity(self) -> dict[str, Any]:
        """What beside trainer, towers and settings must agree between a checkpoint and a run."""
        return dict(self.model.identity())

    def settings_read(self) -> dict[str, Settings]:
        """The settings that this trainer reads, by config node."""
        tuner, settings = self.tuner
        return {tuner.node: settings, self.node: self.settings}

    def save_model(self, epoch: int, directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Save the run; see `runs.resume.save`."""
        resuming.save(self, epoch, directory, *args, **kwargs)

    def resume_model_if_exist(self, directory: str | Path) -> int:
        """Go on from the checkpoint of an interrupted run, if it is this run's."""
        return resuming.resume(self, directory)

    def load_model(self, directory: str | Path, epoch: int | None = None) -> None:
        """Load learned weights for evaluation; nothing is loaded that does not fit."""
        checkpoint.load(self, directory, epoch)

    def to_our_names(self, state: dict[str, Any], path: Path) -> dict[str, Any]:
        """What a published checkpoint holds, under the names of this project."""
        return to_our_names(state, self.model, path)

    def begin_record(self) -> None:
        """Say what the run is, once nothing can be refused; what stood there is another run's."""
        cfg = pictures.changed(self.cfg, "TEST.FINAL_MODEL", self.final_model)
        distributed.on_main(lambda: run_record.begin(cfg, self.output_dir))

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate a split; the final evaluation (no split named) writes results.json."""
        return distributed.on_main(lambda: evaluation.test(self, split))
