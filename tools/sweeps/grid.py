"""A grid of protocols, data sets, seeds, shots and trainers -> jobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from tools.sweeps.names import dataset_name, is_embedded
from tools.sweeps.protocols import (
    FEW_SHOTS,
    SHOTS,
    TEACHER_KEY,
    Job,
    Run,
    join,
    learns_nothing,
    plan,
)

TEACHER = "PromptSRC"


@dataclass(frozen=True)
class Grid:
    """What a sweep runs over.

    Attributes:
        trainers: each TRAINER or TRAINER:CONFIG.
        datasets: stems; the sources of xd and dg.
        shots: (): those of each protocol.
        targets: of xd and dg; (): those of each source.
        opts: KEY VALUE pairs for every job.
    """

    protocols: tuple[str, ...]
    trainers: tuple[str, ...]
    datasets: tuple[str, ...]
    output: Path
    seeds: tuple[int, ...] = (1,)
    shots: tuple[int, ...] = ()
    targets: tuple[str, ...] = ()
    root: str = "data"
    opts: tuple[str, ...] = ()

    def jobs(self) -> list[Job]:
        """All jobs, each once, trainings before their tests.

        Raises:
            ValueError: a name does not exist, or two jobs would write to one folder.
        """
        return join([plan(run) for run in self._runs()])

    def used(self) -> list[str]:
        """Stems of the data sets whose pictures are needed."""
        runs = [run.resolved() for run in self._runs()]
        return sorted({name for run in runs for name in (run.dataset, *run.targets)})

    def _runs(self) -> Iterator[Run]:
        cells = product(self.protocols, self.datasets, self.seeds, self.trainers)
        for protocol, dataset, seed, spec in cells:
            trainer, _, config = spec.partition(":")
            if protocol in ("fewshot", "zeroshot") and learns_nothing(trainer):
                protocol, all_shots = "zeroshot", (0,)  # the same whatever the shots
            else:
                all_shots = self.shots or (FEW_SHOTS if protocol == "fewshot" else (SHOTS,))
            for shots in all_shots:
                run = Run(protocol, trainer, dataset, seed, shots, self.output, config, self.root)
                yield self._taught(replace(run, targets=self.targets, opts=self.opts))

    def _taught(self, run: Run) -> Run:
        """A student of PromptKD learns from the PromptSRC run of its cell, if there is one."""
        specs = [s for s in self.trainers if s.partition(":")[0] == TEACHER]
        student = "promptkd" in f"{run.trainer}:{run.config}".lower()
        if not student or not specs or TEACHER_KEY in run.opts:
            return run
        teacher = replace(run, trainer=TEACHER, config=specs[0].partition(":")[2])
        folder = plan(teacher)[0].folder
        return replace(run, opts=(*run.opts, TEACHER_KEY, str(folder)), needs=(folder,))


def draw_missing(datasets: list[str], root: Path) -> None:
    """Draw the embedded data sets that are not there, so that no two jobs draw the same."""
    missing = [name for name in datasets if is_embedded(name) and not (root / name).is_dir()]
    if not missing:
        return
    from dassl.data.datasets import DATASET_REGISTRY

    import datasets.emoji
    from datasets.emoji_files import ensure_dataset

    for name in missing:
        kind = DATASET_REGISTRY.get(dataset_name(name))
        ensure_dataset(root / name, kind.split_file, kind.set_name, kind.domain)
