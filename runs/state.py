"""RunState: what a run is and how far it has come. The functions of `runs` take and write it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from datasets.subsets import picture_digest
from runs.average import EpochAverage
from runs.precision import Precision
from runs.rng import WorkerStates


@dataclass
class RunState:
    """One run.

    Attributes:
        dataset: with `train_x`, `val` and `test`; where there are no pictures, with class names.
        label: name of the data in results and tables.
        class_names: C names.
        weights: digest of the backbone.
        settings: those that the trainer reads, by config node.
        compatibility: what else a checkpoint and a run must have in common, as a teacher.
        learned: what is trained and saved; None where nothing is.
        checkpoint_name: folder of the checkpoints in the run's.
        average: mean of the parameters over epochs, where the method has one.
        workers: random states of the processes that read pictures.
        epoch: the current one, counted from 0.
        trained: whether this run trains.
        transductive: whether it trains on unlabelled pictures of new classes, too.
        final_model: TEST.FINAL_MODEL, or last_step where best_val has no pictures to choose by.
        best_epoch: best on validation pictures so far, counted from 1; 0 for none.
        best_result: accuracy there.
        loaded_epoch: of the checkpoint that was loaded for evaluation.
        selected_by: what chose the epoch that is evaluated: best_val, last_step or load_epoch.
        foreign: another project wrote the loaded checkpoint.
        trained_settings: the settings that the loaded weights were trained with.
        source_dataset: data set of the run whose weights were loaded.
        unreadable: a sentence for each picture that was skipped, by split.
        turned: indices of pictures that EXIF data call to turn, by split.
    """

    dataset: Any = None
    label: str = ""
    class_names: list[str] = field(default_factory=list)
    weights: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    compatibility: dict[str, Any] = field(default_factory=dict)

    learned: Any = None
    checkpoint_name: str = ""
    precision: Precision = field(
        default_factory=lambda: Precision("fp32", nn.Identity(), torch.device("cpu"))
    )
    optimiser: Any = None
    scheduler: Any = None
    average: EpochAverage | None = None
    workers: WorkerStates = field(default_factory=WorkerStates)

    epoch: int = 0
    trained: bool = False
    transductive: bool = False
    final_model: str = "last_step"
    best_epoch: int = 0
    best_result: float = -float("inf")
    loaded_epoch: int | None = None
    selected_by: str = "last_step"
    foreign: bool = False
    trained_settings: dict[str, Any] | None = None
    source_dataset: str = ""
    unreadable: dict[str, set[str]] = field(default_factory=dict)
    turned: dict[str, set[int]] = field(default_factory=dict)

    @property
    def num_learned(self) -> int:
        """Trainable scalars."""
        return 0 if self.learned is None else sum(p.numel() for p in self.learned.parameters())

    @cached_property
    def pictures(self) -> str:
        """Digest of the training and validation pictures as they were when it was first asked."""
        return picture_digest([*(self.dataset.train_x or ()), *(self.dataset.val or ())])
