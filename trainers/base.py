"""What all CLIP trainers share: load, freeze, optimise, precision; evaluation and checkpoints."""

from __future__ import annotations

import logging
from typing import Any

import torch
from dassl.engine import TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import count_num_param
from torch import Tensor, nn
from yacs.config import CfgNode

from models.averaging import EpochAverage
from models.classifier import CLIPClassifier
from models.loading import load_clip
from trainers import calibration, checkpoint, data_parallel, distributed, evaluation, pictures
from trainers.precision import Precision
from trainers.settings import Run, Settings, add_settings, read_settings

logger = logging.getLogger(__name__)


class CLIPTrainer(TrainerX):
    """A trainer is a `Settings` class, a config node, and `build`.

    The model says what its loss is and what it remembers after a step. Exactly one module, the
    model's `learned`, is registered and saved.
    """

    node: str
    settings_class: type[Settings]
    checkpoint_name = "prompt_learner"
    dataset_wrapper = pictures.KeptPictures
    settings: Any
    trained = False
    loaded_epoch: int | None = None
    trained_on = ""  # the data set that loaded weights come from, where it is another run's

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

    @property
    def tuner(self) -> tuple[type[CLIPTrainer], Any]:
        """Whose prompts are tuned, and its settings: this trainer, or the base of a head."""
        return type(self), self.settings

    def build_clip(self, tuner: CLIPClassifier) -> nn.Module:
        """The model of this trainer: the tuner, or a head on it."""
        return tuner

    def check_cfg(self, cfg: CfgNode) -> None:
        """Read and check the settings before anything is loaded."""
        self.settings = read_settings(cfg, self.node, self.settings_class)

    def build_data_loader(self) -> None:
        """Build the loaders; best_val without a validation split of its own becomes last_step."""
        with distributed.main_first():
            super().build_data_loader()
        self.unreadable: dict[str, set[str]] = {}  # what was skipped, by split
        self.cfg, self.epoch_chosen_by = pictures.who_chooses_the_epoch(self.cfg, self.dm.dataset)
        self.transductive = getattr(self.tuner[1], "TRANSDUCTIVE", False)
        if self.transductive:
            self.train_loader_x = pictures.loader_of_all_classes(self.cfg)
        data_parallel.deal_out(self.train_loader_x)

    def build_model(self) -> None:
        """Load CLIP, build the model on it, register what is learned."""
        cfg, backbone = self.cfg, self.cfg.MODEL.BACKBONE
        self.class_names = list(self.dm.dataset.classnames)
        (tuner, settings), run = self.tuner, Run(cfg, self.dm.dataset)
        logger.info("Loading CLIP (backbone: %s)", backbone.NAME)
        clip = load_clip(backbone.NAME, pretrained=backbone.PRETRAINED)
        tuned = tuner.build(clip, tuner.model_classes(run), settings, run)
        self.model = self.build_clip(calibration.prepare(tuned, cfg.MODEL)).to(self.device)
        self.precision = Precision(self.settings.PREC, self.model, self.device)
        learned = self.model.learned
        self.average = None
        if learned is None:
            return
        if (weights := tuner.epoch_weights(settings, cfg.OPTIM.MAX_EPOCH)) is not None:
            self.average = EpochAverage(learned, weights)
        self.optim = build_optimizer(learned, cfg.OPTIM, param_groups=self.parameter_groups())
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model(self.checkpoint_name, learned, self.optim, self.sched)
        self.step = data_parallel.stepper(self.model)
        logger.info("Learned parameters: %s", f"{self.num_learned():,}")

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters to train, in groups for the optimiser."""
        return [{"params": [p for p in self.model.learned.parameters() if p.requires_grad]}]

    def num_learned(self) -> int:
        """Trainable scalars."""
        return count_num_param(self.model.learned) if self.model.learned is not None else 0

    def before_train(self) -> None:
        """Resume if there is something to resume, else learn what to prune."""
        super().before_train()
        self.trained = True
        self.train_loader_x.dataset.keep()
        calibration.calibrate_pruner(self)
        data_parallel.draw_apart(self.cfg.SEED)

    def init_writer(self, log_dir: Any) -> None:
        """Open TensorBoard's file, in one process."""
        if distributed.is_main():
            super().init_writer(log_dir)

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
        image, label = self.parse_batch_train(batch)
        with self.precision.autocast():
            step = self.step(image, label)
            total = torch.stack(list(step.parts.values())).sum()
        self.precision.descend(self, total)
        self.model.remember(data_parallel.gathered(step))
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        accuracy = compute_accuracy(step.logits, step.target.label)[0]
        summary = {"loss": total.item(), "acc": accuracy.item()}
        if len(step.parts) > 1:
            summary |= {f"loss_{name}": part.item() for name, part in step.parts.items()}
        return summary

    def after_epoch(self) -> None:
        """Count the epoch's parameters where they are averaged, then evaluate and save."""
        data_parallel.agree(self.model.learned)
        if self.average is not None:
            self.average.add(self.epoch)
        if self.epoch + 1 == self.max_epoch:
            self.finish()
        super().after_epoch()

    def finish(self) -> None:
        """After the last step, before anything is saved."""
        if self.average is not None:
            self.average.install()

    def identity(self) -> dict[str, Any]:
        """What a checkpoint says of itself."""
        return {
            "trainer": self.cfg.TRAINER.NAME,
            "backbone": self.cfg.MODEL.BACKBONE.NAME,
            "class_names": self.class_names,
        } | self.model.identity()

    def identity_keys(self) -> tuple[str, ...]:
        """What must agree between a checkpoint and this run for an evaluation."""
        return ("trainer", "backbone", *self.model.identity())

    def save_model(self, epoch: int, directory: str, *args: Any, **kwargs: Any) -> None:
        """Save what was learned, and its identity; see `trainers.checkpoint.save`."""
        distributed.on_main(lambda: checkpoint.save(self, epoch, directory, *args, **kwargs))

    def resume_model_if_exist(self, directory: str) -> int:
        """Go on from the checkpoint of an interrupted run, if it is this run's."""
        checkpoint.prepare_resuming(self, directory)
        return super().resume_model_if_exist(directory)

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load learned weights for evaluation; nothing is loaded that does not fit."""
        self.loaded_epoch = checkpoint.load(self, directory, epoch)

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate a split; the final evaluation (no split named) writes results.json."""
        return distributed.on_main(lambda: evaluation.test(self, split))
