"""What all CLIP trainers share: load, freeze, optimise, precision, checkpoints, results."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from dassl.engine import TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import count_num_param, save_checkpoint
from torch import Tensor, nn
from yacs.config import CfgNode

from models.loading import load_clip
from trainers.checkpoint import check_identity, find_checkpoint, load_into, read_checkpoint
from trainers.evaluation import evaluate
from trainers.precision import Precision
from trainers.run_record import write_results
from trainers.settings import Settings, add_settings, read_settings

logger = logging.getLogger(__name__)


class CLIPTrainer(TrainerX):
    """A trainer is a `Settings` class, a config node, and `build_clip`.

    Where cross-entropy is not enough it overrides `loss`; what must follow an optimiser step goes
    into `after_step`. Exactly one module, the model's `learned`, is registered and saved.
    """

    node: str
    settings_class: type[Settings]
    checkpoint_name = "prompt_learner"
    settings: Any
    trained = False
    loaded_epoch: int | None = None

    @classmethod
    def extend_cfg(cls, cfg: CfgNode) -> None:
        """Add this trainer's keys, with their defaults, to a config."""
        add_settings(cfg, cls.node, cls.settings_class)

    def build_clip(self, clip: nn.Module, class_names: list[str]) -> nn.Module:
        """The model: images -> logits, with the trainable part under `.learned`."""
        raise NotImplementedError

    def loss(self, image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (B, C) and the parts whose sum is minimised."""
        logits = self.model(image)
        return logits, {"ce": F.cross_entropy(logits, label)}

    def after_step(self, label: Tensor) -> None:
        """Called after each optimiser step."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters to train, in groups for the optimiser."""
        return [{"params": [p for p in self.model.learned.parameters() if p.requires_grad]}]

    # Construction

    def check_cfg(self, cfg: CfgNode) -> None:
        """Read and check the settings before anything is loaded."""
        self.settings = read_settings(cfg, self.node, self.settings_class)

    def build_data_loader(self) -> None:
        """Build the loaders; best_val without a validation split of its own becomes last_step."""
        super().build_data_loader()
        dataset = self.dm.dataset
        test = {item.impath for item in dataset.test}
        own_val = dataset.val and not any(item.impath in test for item in dataset.val)
        self.epoch_chosen_by = self.cfg.TEST.FINAL_MODEL
        if self.epoch_chosen_by == "best_val" and not own_val:
            logger.warning(
                "%s has no validation split apart from its test pictures: "
                "the last epoch is reported instead of the best",
                self.cfg.DATASET.NAME,
            )
            self.cfg.defrost()
            self.cfg.TEST.FINAL_MODEL = self.epoch_chosen_by = "last_step"
            self.cfg.freeze()

    def build_model(self) -> None:
        """Load CLIP, build the model on it, register what is learned."""
        cfg, backbone = self.cfg, self.cfg.MODEL.BACKBONE
        logger.info("Loading CLIP (backbone: %s)", backbone.NAME)
        clip = load_clip(backbone.NAME, pretrained=backbone.PRETRAINED)
        self.class_names = list(self.dm.dataset.classnames)
        self.model = self.build_clip(clip, self.class_names).to(self.device)
        self.precision = Precision(self.settings.PREC, self.model, self.device)
        learned = self.model.learned
        if learned is None:
            return
        self.optim = build_optimizer(learned, cfg.OPTIM, param_groups=self.parameter_groups())
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model(self.checkpoint_name, learned, self.optim, self.sched)
        logger.info("Learned parameters: %s", f"{self.num_learned():,}")

    def num_learned(self) -> int:
        """Trainable scalars."""
        return count_num_param(self.model.learned) if self.model.learned is not None else 0

    # Training

    def before_train(self) -> None:
        """Resume if there is something to resume."""
        super().before_train()
        self.trained = True

    def set_model_mode(self, mode: str = "train", names: Any = None) -> None:
        """Set the whole model's mode, so that it forgets what it kept for an evaluation."""
        super().set_model_mode(mode, names)
        self.model.train(mode == "train")

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Images and labels on the device."""
        return batch["img"].to(self.device, non_blocking=True), batch["label"].to(self.device)

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float]:
        """One optimiser step; returns the loss, its parts and the batch accuracy in percent."""
        image, label = self.parse_batch_train(batch)
        with self.precision.autocast():
            logits, parts = self.loss(image, label)
            total = torch.stack(list(parts.values())).sum()
        self._step(total)
        self.after_step(label)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        summary = {"loss": total.item(), "acc": compute_accuracy(logits, label)[0].item()}
        if len(parts) > 1:
            summary |= {f"loss_{name}": part.item() for name, part in parts.items()}
        return summary

    def _step(self, loss: Tensor) -> None:
        scaler = self.precision.scaler
        if scaler is None:
            self.model_backward_and_update(loss)
            return
        self.optim.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(self.optim)
        scaler.update()

    # Checkpoints

    def identity(self) -> dict[str, Any]:
        """What a checkpoint says of itself."""
        return {
            "trainer": self.cfg.TRAINER.NAME,
            "backbone": self.cfg.MODEL.BACKBONE.NAME,
            "class_names": self.class_names,
        }

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Save what was learned, and its identity."""
        state = {
            "state_dict": self.model.learned.state_dict(),
            "epoch": epoch + 1,
            "optimizer": self.optim.state_dict(),
            "scheduler": self.sched.state_dict(),
            "val_result": val_result,
            "identity": self.identity(),
        }
        folder = str(Path(directory) / self.checkpoint_name)
        save_checkpoint(state, folder, is_best=is_best, model_name=model_name)

    def resume_model_if_exist(self, directory: str) -> int:
        """Go on from the checkpoint of an interrupted run, if it is this run's."""
        pointer = Path(directory) / self.checkpoint_name / "checkpoint"
        if pointer.is_file():
            path = find_checkpoint(directory, self.checkpoint_name, last=True)
            keys = ("trainer", "backbone", "class_names")
            check_identity(read_checkpoint(path), self.identity(), path, keys)
        return super().resume_model_if_exist(directory)

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load learned weights for evaluation; nothing is loaded that does not fit."""
        if not directory:
            logger.info("No --model-dir: evaluating without learned weights")
            return
        path = find_checkpoint(directory, self.checkpoint_name, epoch)
        saved = read_checkpoint(path)
        check_identity(saved, self.identity(), path, self.identity_keys())
        load_into(self.model.learned, saved, path)
        self.loaded_epoch = saved["epoch"]
        logger.info("Loaded %s (epoch %d)", path, saved["epoch"])

    def identity_keys(self) -> tuple[str, ...]:
        """What must agree between a checkpoint and this run for an evaluation."""
        return ("trainer", "backbone")

    # Evaluation

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate a split; the final evaluation (no split named) writes results.json."""
        final = split is None
        split = split or self.cfg.TEST.SPLIT
        split = "val" if split == "val" and self.val_loader is not None else "test"
        loader = self.val_loader if split == "val" else self.test_loader
        logger.info("Evaluate on the *%s* set", split)
        results, rate = evaluate(self, loader)
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        if final:
            record = self.record() | {"split": split, "n": len(loader.dataset)}
            record |= {key: results[key] for key in ("accuracy", "macro_f1")}
            path = write_results(self.cfg.OUTPUT_DIR, record | {"images_per_s": rate})
            logger.info("Results written to %s", path)
        return next(iter(results.values()))

    def record(self) -> dict[str, Any]:
        """What this run is, for results.json."""
        cfg = self.cfg
        return {
            "trainer": cfg.TRAINER.NAME,
            "dataset": cfg.DATASET.NAME,
            "classes": cfg.DATASET.SUBSAMPLE_CLASSES,
            "shots": cfg.DATASET.NUM_SHOTS,
            "seed": cfg.SEED,
            "config": cfg.CONFIG_NAME,
            "backbone": cfg.MODEL.BACKBONE.NAME,
            "epoch": self.tested_epoch(),
            "epoch_chosen_by": self.epoch_chosen_by,
            "learned_parameters": self.num_learned(),
        }

    def tested_epoch(self) -> int:
        """The epoch whose weights are evaluated; 0 where nothing was trained."""
        if self.loaded_epoch is not None:
            return self.loaded_epoch
        return min(self.epoch + 1, self.max_epoch) if self.trained else 0
