"""RunState: what a run is and how far it has come. The functions of `runs` take and write it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter, process_time
from typing import Any

from datasets.subsets import picture_digest
from runs.average import EpochAverage
from runs.feature_store import Store
from runs.precision import Precision
from runs.rng import WorkerStates


@dataclass
class RunState:
    """One run. Epochs count from 1 unless it says otherwise."""

    # What it is
    checkpoint_name: str = ""  # folder of the checkpoints in the run's
    dataset: Any = None  # has train_x, val and test; class names alone where no picture is read
    label: str = ""  # name of the data in results and tables
    class_names: list[str] = field(default_factory=list)
    weights: str = ""  # digest of the backbone
    settings: dict[str, Any] = field(default_factory=dict)  # by config node that is read
    compatibility: dict[str, Any] = field(default_factory=dict)  # what else a checkpoint must share
    outdated: tuple[str, ...] = ()  # tensors that only checkpoints of earlier versions hold
    transductive: bool = False  # trains on unlabelled pictures of new classes, too
    final_model: str = "last_step"  # TEST.FINAL_MODEL, as far as there are pictures to choose by

    # What it trains, and what goes on with it
    learned: Any = None  # a module, unless nothing is learned
    precision: Precision = field(init=False, repr=False)  # once there is a model
    store: Store | None = None  # of image features, where the method takes them
    optimiser: Any = None  # None, as the scheduler, where nothing is learned in steps
    scheduler: Any = None
    average: EpochAverage | None = None  # of the parameters over epochs, where the method has one
    workers: WorkerStates = field(default_factory=WorkerStates)

    # How far it has come
    trained: bool = False
    epoch: int = 0  # the current one, from 0
    best_epoch: int = 0  # on validation pictures so far; 0 for none
    best_result: float = -float("inf")
    train_s: float | None = None  # seconds of training so far; None for unknown
    train_clock: str = "processor"  # that counts them, on a CPU; "wall" on a GPU
    # By split: why pictures were skipped, and which ones EXIF calls to turn
    unreadable: dict[str, set[str]] = field(default_factory=dict)
    turned: dict[str, set[int]] = field(default_factory=dict)

    # Where the weights come from that are evaluated
    loaded_epoch: int | None = None
    selected_by: str = "last_step"  # or best_val, load_epoch
    foreign: bool = False  # another project wrote the checkpoint
    trained_settings: dict[str, Any] | None = None  # that they were trained with
    source_dataset: str = ""  # of the run that trained them

    @property
    def num_learned(self) -> int:
        """Scalars that are trained, or fitted afterwards as a head's."""
        return 0 if self.learned is None else sum(p.numel() for p in self.learned.parameters())

    @contextmanager
    def training(self) -> Iterator[None]:
        """Count what is done inside as training, in `train_s`, if that is known so far."""
        seconds = process_time if self.train_clock == "processor" else perf_counter
        start = seconds()
        yield
        if self.train_s is not None:
            self.train_s += seconds() - start

    @cached_property
    def pictures(self) -> str:
        """Digest of the training and validation pictures as they are when it is first read."""
        return picture_digest([*(self.dataset.train_x or ()), *(self.dataset.val or ())])
