"""A grid of protocols, data sets, seeds, shots and trainers -> jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from tools.sweeps.names import dataset_name, is_embedded
from tools.sweeps.protocols import FEW_SHOTS, SHOTS, Cell, Job, join, learns_nothing, plan

TEACHER, TEACHER_KEY = "PromptSRC", "TRAINER.PROMPTKD.TEACHER_DIR"


@dataclass(frozen=True)
class Grid:
    """What a sweep runs over; see `Cell`."""

    protocols: tuple[str, ...]
    trainers: tuple[str, ...]  # each TRAINER or TRAINER:CONFIG
    datasets: tuple[str, ...]
    output: Path
    seeds: tuple[int, ...] = (1,)
    shots: tuple[int, ...] = ()  # those of each protocol
    targets: tuple[str, ...] = ()
    root: str = "data"
    target_root: str = ""
    opts: tuple[str, ...] = ()

    def jobs(self) -> list[Job]:
        """Return all jobs, each once, trainings before their tests.

        Raises:
            ValueError: a name does not exist, or two jobs would write to one folder.
        """
        return join([plan(cell) for cell in self._cells()])

    def used(self) -> list[tuple[str, str]]:
        """Return roots and stems of the data sets whose pictures are needed."""
        cells = [cell.resolved() for cell in self._cells()]
        sources = {(cell.root, cell.dataset) for cell in cells}
        targets = {(cell.target_root or cell.root, name) for cell in cells for name in cell.targets}
        return sorted(sources | targets)

    def _cells(self) -> Iterator[Cell]:
        common = {"root": self.root, "targets": self.targets}
        common |= {"target_root": self.target_root, "opts": self.opts}
        axes = product(self.protocols, self.datasets, self.seeds, self.trainers)
        for protocol, dataset, seed, spec in axes:
            trainer, _, config = spec.partition(":")
            if protocol in ("fewshot", "zeroshot") and learns_nothing(trainer):
                protocol, all_shots = "zeroshot", (0,)  # the same whatever the shots
            else:
                all_shots = self.shots or (FEW_SHOTS if protocol == "fewshot" else (SHOTS,))
            for shots in all_shots:
                place = (protocol, trainer, dataset, seed, shots, self.output, config)
                yield self._with_teacher(Cell(*place, **common))

    def _with_teacher(self, cell: Cell) -> Cell:
        """A student of PromptKD learns from the grid's PromptSRC run on the same data and seed."""
        specs = [spec for spec in self.trainers if spec.partition(":")[0] == TEACHER]
        is_student = "promptkd" in f"{cell.trainer}:{cell.config}".lower()
        if not is_student or not specs or TEACHER_KEY in cell.opts:
            return cell
        teacher = replace(cell, trainer=TEACHER, config=specs[0].partition(":")[2])
        folder = plan(teacher)[0].folder
        return replace(cell, opts=(*cell.opts, TEACHER_KEY, str(folder)), needs=(folder,))


def draw_missing(used: Sequence[tuple[str, str]], project: Path) -> None:
    """Draw the missing ones of embedded data sets (roots, stems), so that no two jobs do."""
    embedded = [project / root / name for root, name in used if is_embedded(name)]
    missing = [folder for folder in embedded if not folder.is_dir()]
    if not missing:
        return
    from dassl.data.datasets import DATASET_REGISTRY

    from datasets.emoji import ensure_dataset

    for folder in missing:
        kind = DATASET_REGISTRY.get(dataset_name(folder.name))
        ensure_dataset(folder, kind.split_file, kind.set_name, kind.domain)
