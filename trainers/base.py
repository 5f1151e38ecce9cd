"""The base class of the methods. It alone overrides the engine, Dassl.

A method is a subclass with `node`, `settings_class` and `build`; it may override the hooks. What
all methods share is in `runs`, in functions of the config, the model and a `RunState`.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from dassl.data import DataManager
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import set_random_seed
from torch import Tensor, nn
from yacs.config import CfgNode

from models.classifier import CLIPClassifier
from runs import (
    checkpoint,
    data,
    evaluate,
    features,
    health,
    identity,
    parallel,
    record,
    resume,
    watch,
)
from runs.average import EpochAverage
from runs.backbone import check_class_names, load_backbone
from runs.feature_store import open_store
from runs.precision import Precision
from runs.state import RunState
from trainers.published import RENAMED, read_for_run
from trainers.settings import (
    BuildContext,
    Settings,
    add_settings,
    log_unused_context,
    read_settings,
)

logger = logging.getLogger(__name__)

register = TRAINER_REGISTRY.register()
trainer_named = TRAINER_REGISTRY.get
trainer_names = TRAINER_REGISTRY.registered_names


class CLIPTrainer(TrainerX):
    """Trains what a method builds; `model.learned` is registered and saved."""

    node: str  # name of the config node TRAINER.<node>
    settings_class: type[Settings]  # these keys, their defaults and checks
    checkpoint_name = "prompt_learner"  # folder of the checkpoints, inside the run's folder
    learns = True  # whether there is anything to train
    computed = False  # learned at once, in `end_of_training`: no epochs, no steps, no optimiser
    takes_head = False  # whether a Spotlighter head can stand on its tuner
    new_classes = "the prompts go on"  # what classes without pictures get; tables print it
    # whether its image tower is CLIP's, frozen, and it sees of pictures what `encode_raw` gives
    takes_features = False
    outdated: tuple[str, ...] = ()  # tensors that only checkpoints of earlier versions hold
    settings: Any

    # What a method declares

    @classmethod
    def extend_cfg(cls, cfg: CfgNode) -> None:
        """Add this trainer's keys, with their defaults, to a config."""
        add_settings(cfg, cls.node, cls.settings_class)

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: Any, run: BuildContext
    ) -> CLIPClassifier:
        """The model: images -> logits, with the trainable part under `.learned`."""
        raise NotImplementedError

    @classmethod
    def model_classes(cls, run: BuildContext) -> list[str]:
        """The classes that the model knows; those of the run, unless the method has others."""
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
    def tuner(self) -> tuple[type[CLIPTrainer], Any]:
        """Whose prompts are tuned, and its settings: this trainer, or the base of a head."""
        return type(self), self.settings

    def wrap(self, tuner: CLIPClassifier) -> nn.Module:
        """The model of this trainer: the tuner, or a head on it."""
        return tuner

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters to train, in groups for the optimiser."""
        return [{"params": [p for p in self.model.learned.parameters() if p.requires_grad]}]

    def compatibility(self) -> dict[str, Any]:
        """What beside trainer, towers and settings must be equal in a checkpoint and a run."""
        return dict(self.model.identity())

    def settings_read(self) -> dict[str, Settings]:
        """The settings that this trainer reads, by config node."""
        tuner, settings = self.tuner
        return {tuner.node: settings, self.node: self.settings}

    # Hooks of a method; they do nothing here

    def before_training(self) -> None:
        """Called before the first epoch, also of a run that goes on."""

    def end_of_epoch(self) -> None:
        """Called after the last step of an epoch, before anything is evaluated or saved."""

    def end_of_training(self) -> None:
        """Called after the last step of all, before anything is evaluated or saved."""

    # Building

    def __init__(self, cfg: CfgNode) -> None:
        by = cfg.TEST.FINAL_MODEL
        self.state = RunState(self.checkpoint_name, final_model=by, selected_by=by)
        super().__init__(cfg)

    def check_cfg(self, cfg: CfgNode) -> None:
        """Read and check the settings before anything is loaded."""
        self.settings = read_settings(cfg, self.node, self.settings_class)

    def build_data_loader(self) -> None:
        """Build the loaders."""
        cfg, state = self.cfg, self.state
        dm = parallel.rank0_first(lambda: DataManager(cfg, dataset_wrapper=data.CachedDataset))
        self.dm, self.train_loader_x, self.lab2cname = dm, dm.train_loader_x, dm.lab2cname
        self.val_loader, self.test_loader = dm.val_loader, dm.test_loader
        state.final_model = state.selected_by = data.final_model(cfg, dm.dataset)
        state.transductive = getattr(self.tuner[1], "TRANSDUCTIVE", False)
        if state.transductive:
            logger.warning(
                "Training also sees pictures of new classes, without labels (transductive)"
            )
            every = record.changed(cfg, {"DATASET.SUBSAMPLE_CLASSES": "all"})
            manager = DataManager(every, dataset_wrapper=data.CachedDataset)
            self.train_loader_x = manager.train_loader_x
        parallel.split_over_processes(self.train_loader_x)

    def build_model(self) -> None:
        """Load CLIP, build the model on it, register what is learned."""
        cfg, state, dataset = self.cfg, self.state, self.dm.dataset
        (tuner, settings), run = self.tuner, BuildContext(cfg, dataset)
        names = tuner.model_classes(run)
        logger.info("Loading CLIP (backbone: %s)", cfg.MODEL.BACKBONE.NAME)
        clip = load_backbone(cfg.MODEL, cfg.INPUT)
        self.class_names = state.class_names = check_class_names(dataset.classnames, clip)
        state.dataset = dataset
        state.label = str(getattr(dataset, "label", cfg.DATASET.NAME))
        state.weights, state.settings = identity.digest(clip), self.settings_read()
        tuned = data.prepare(tuner.build(clip, names, settings, run), cfg.MODEL)
        self.model = self.wrap(tuned).to(self.device)
        state.precision = Precision(self.settings.PREC, self.model, self.device)
        if tuner.takes_features:
            keep = cfg.FEATURES
            state.store = open_store(keep.KEEP, keep.DIR, int(keep.MAX_GB * 2**30))
        state.learned, state.compatibility = self.model.learned, self.compatibility()
        state.outdated = self.outdated
        if state.learned is not None:
            self.build_optimiser(tuner.epoch_weights(settings, cfg.OPTIM.MAX_EPOCH))

    def build_optimiser(self, epoch_weights: Tensor | None) -> None:
        """Build what trains the model, and register what is learned."""
        state, learned = self.state, self.model.learned
        if self.computed:
            self.max_epoch = 1  # that of its checkpoint
            self.register_model(self.checkpoint_name, learned)
            return
        if epoch_weights is not None:
            state.average = EpochAverage(learned, epoch_weights)
        self.optim, self.sched = self.optimiser_of(learned, self.parameter_groups())
        state.optimiser, state.scheduler = self.optim, self.sched
        self.register_model(self.checkpoint_name, learned, self.optim, self.sched)
        self.step = parallel.stepper(self.model)
        logger.info("Learned parameters: %s", f"{state.num_learned:,}")
        for node, read in state.settings.items():
            log_unused_context(node, read, identity.context_length(learned))

    def optimiser_of(
        self, module: nn.Module, groups: list[dict[str, Any]] | None = None
    ) -> tuple[Any, Any]:
        """An optimiser of a module, or of groups of its parameters, and its schedule."""
        optimiser = build_optimizer(module, self.cfg.OPTIM, param_groups=groups)
        return optimiser, build_lr_scheduler(optimiser, self.cfg.OPTIM)

    def learn_on_rank0(self, work: Callable[[], None]) -> None:
        """Let rank 0 alone set what is learned, at once; the others get what it found."""
        parallel.on_rank0(work)
        parallel.broadcast(self.model.learned)

    # Training; these override the engine

    def before_train(self) -> None:
        """Begin with MODEL.INIT_WEIGHTS, or go on with a run that was interrupted."""
        cfg, state = self.cfg, self.state
        health.require_pairs(cfg, self.model.learned, self.train_loader_x)
        if cfg.MODEL.INIT_WEIGHTS:
            self.start_from(Path(cfg.MODEL.INIT_WEIGHTS))
        super().before_train()
        state.trained = True
        state.epoch = self.epoch = max(0, self.start_epoch - 1)  # evaluated if all epochs are done
        _ = state.pictures  # as they are now, not when the first checkpoint is written
        self.begin_record()
        state.workers.watch(self.train_loader_x)
        state.train_s = 0.0 if self.start_epoch == 0 else None  # an earlier part is not known
        state.train_clock = "processor" if self.device.type == "cpu" else "wall"
        with state.training():
            self.prepare_training()

    def prepare_training(self) -> None:
        """Read what is kept, prune, take features of views, call the method's hook."""
        cfg, state = self.cfg, self.state
        self.train_loader_x.dataset.keep()
        data.calibrate_pruner(cfg, state, self.model)
        if cfg.FEATURES.VIEWS and not self.computed:
            self.train_loader_x = features.ViewLoader(cfg, state, self.model, self.train_loader_x)
        if parallel.rank() and cfg.SEED >= 0 and self.start_epoch == 0:
            set_random_seed(cfg.SEED + parallel.rank())  # other augmentations in each process
        self.before_training()

    def start_from(self, given: Path) -> None:
        """Take over what another run, a folder or a checkpoint, has learned.

        The optimiser begins anew; this run's training pictures fill the bank and the pruner.
        """
        learned, filled, path = self.model.learned, checkpoint.STATISTICS, given
        if given.is_dir():
            path = checkpoint.find_checkpoint(given, self.checkpoint_name)
        saved = read_for_run(self.cfg, self.state, self.model, path)
        own = {k: v for k, v in learned.state_dict().items() if k.startswith(filled)}
        state = {k: v for k, v in saved["state_dict"].items() if not k.startswith(filled)}
        checkpoint.load_into(learned, {"state_dict": state | own}, path)
        logger.info("Starting from %s (MODEL.INIT_WEIGHTS)", path)

    def init_writer(self, log_dir: Any) -> None:
        """Open the logs of `runs.watch` on rank 0."""
        if not parallel.is_rank0():
            return
        done, batches = self.start_epoch, len(self.train_loader_x)
        watch.remove_later_events(Path(log_dir), done, batches)
        super().init_writer(log_dir)
        if self.cfg.TRAIN.WANDB != "off":
            label, local = self.state.label, self._writer
            self._writer = watch.WandbWriter(self.cfg, label, batches, done, local)

    def set_model_mode(self, mode: str = "train", names: Any = None) -> None:
        """Set the mode of the whole model, so that it drops what it kept for an evaluation."""
        self.model.train(mode == "train")

    def before_epoch(self) -> None:
        """Note the epoch."""
        self.state.epoch = self.epoch

    def run_epoch(self) -> None:
        """Train on all batches, unless the method is computed; the time counts."""
        if self.computed:
            return
        with self.state.training():
            super().run_epoch()

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float]:
        """One optimiser step; returns the loss, its parts and the batch accuracy in percent."""
        cfg, state = self.cfg, self.state
        state.workers.note(batch)
        with state.precision.autocast():
            step = self.step(*data.training_batch(cfg, state, batch))
            total = torch.stack(list(step.losses.values())).sum()
        state.precision.descend(self.optim, total, step.general)
        self.model.update_memory(parallel.gathered(step))
        place = f"batch {self.batch_idx + 1}/{self.num_batches}"
        summary = health.numbers_of_step(cfg, state, step, total, batch["impath"], place)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return summary

    def after_epoch(self) -> None:
        """Count the epoch's parameters if they are averaged, then evaluate and save."""
        cfg, state, done = self.cfg, self.state, self.epoch + 1
        is_last, frequency = done == self.max_epoch, cfg.TRAIN.CHECKPOINT_FREQ
        with state.training():
            self.end_of_epoch()
            parallel.broadcast(self.model.learned)
            if state.average is not None:
                state.average.add(self.epoch)
                if is_last:
                    state.average.install()
            if is_last:
                self.end_of_training()
        try:
            watch.note_epoch(cfg, state, self.model, self._writer)
        except OSError as error:
            logger.warning("The logs are no longer written: %s", error)
            self.close_writer()
        if state.final_model == "best_val" and not cfg.TEST.NO_TEST:
            self._keep_if_best(self.test(split="val"))
        if is_last or frequency < 0 or (frequency and done % frequency == 0):
            self.save_model(self.epoch, self.output_dir)

    def _keep_if_best(self, result: float) -> None:
        if result > self.state.best_result:
            self.state.best_result = result
            name = checkpoint.BEST
            self.save_model(self.epoch, self.output_dir, val_result=result, model_name=name)

    def after_train(self) -> None:
        """Evaluate the model that is wanted, unless NO_TEST, and log how long it took."""
        logger.info("Finish training")
        if self.cfg.TRAINER.NAME in RENAMED:
            logger.info(
                "The authors' code of %s reads checkpoints of this run after "
                "tools/convert_checkpoint.py; without it, it silently loads nothing",
                self.cfg.TRAINER.NAME,
            )
        if not self.cfg.TEST.NO_TEST:
            if self.state.final_model == "best_val":
                logger.info("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                logger.info("Deploy the last-epoch model")
            self.test()
        seconds = round(time.time() - self.time_start)
        logger.info("Elapsed: %s", datetime.timedelta(seconds=seconds))
        self.close_writer()

    # Checkpoints and results; these override the engine, too

    def save_model(self, epoch: int, directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Save the run after an epoch, counted from 0."""
        resume.save(self.cfg, self.state, directory, epoch, *args, **kwargs)

    def resume_model_if_exist(self, directory: str | Path) -> int:
        """Go on from the checkpoint of an interrupted run, if it is this run's."""
        return resume.resume(self.cfg, self.state, directory)

    def load_model(self, directory: str | Path, epoch: int | None = None) -> None:
        """Load learned weights for evaluation; nothing is loaded that does not fit."""
        if not directory:
            logger.info("No --model-dir: evaluating without learned weights")
            return
        path, state = checkpoint.find_checkpoint(directory, self.checkpoint_name, epoch), self.state
        saved = read_for_run(self.cfg, state, self.model, path)
        checkpoint.load_into(self.model.learned, saved, path)
        state.loaded_epoch = saved["epoch"]
        chosen = "last_step" if epoch is None else "load_epoch"
        state.selected_by = "best_val" if path.name == checkpoint.BEST else chosen
        state.foreign = "identity" not in saved
        state.trained_settings = (saved.get("identity") or {}).get("settings")
        logger.info("Loaded %s (epoch %d)", path, saved["epoch"])

    def begin_record(self) -> None:
        """Write config.yaml, and remove earlier results, once nothing can be refused."""
        cfg = record.changed(self.cfg, {"DATASET.LABEL": self.state.label})
        parallel.on_rank0(lambda: record.begin(cfg, self.output_dir))

    def test(self, split: str | None = None) -> float:
        """Evaluate a split; the final evaluation (no split named) writes results.json."""
        return parallel.on_rank0(lambda: self._test(split))

    def _test(self, asked: str | None) -> float:
        cfg, state = self.cfg, self.state
        split = evaluate.split_to_test(cfg, asked, self.val_loader)
        logger.info("Evaluate on the *%s* set", evaluate.split_in_words(cfg, split))
        halves = []
        if asked is None and self.reports_halves(cfg):
            halves = [evaluate.Half(cfg, name, self.class_names) for name in record.HALVES]
        loader = self.val_loader if split == "val" else self.test_loader
        found = evaluate.evaluate(cfg, state, self.model, loader, self.evaluator, split, halves)
        for name, value in (found.results | found.calibration.figures()).items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        if asked is None:
            evaluate.write(cfg, state, self.model, found, split, halves)
        return next(iter(found.results.values()))
