"""A grid of protocols, data sets, seeds, shots and trainers -> jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    target_root: str = ""
    opts: tuple[str, ...] = ()

    def jobs(self) -> list[Job]:
        """All jobs, each once, trainings before their tests.

        Raises:
            ValueError: a name does not exist, or two jobs would write to one folder.
        """
        return join([plan(run) for run in self._runs()])

    def used(self) -> list[tuple[str, str]]:
        """Roots and stems of the data sets whose pictures are needed."""
        runs = [run.resolved() for run in self._runs()]
        sources = {(run.root, run.dataset) for run in runs}
        targets = {(run.target_root or run.root, name) for run in runs for name in run.targets}
        return sorted(sources | targets)

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
                run = replace(run, targets=self.targets, target_root=self.target_root)
                yield self._taught(replace(run, opts=self.opts))

    def _taught(self, run: Run) -> Run:
        """A student of PromptKD learns from the PromptSRC run of its cell, if there is one."""
        specs = [s for s in self.trainers if s.partition(":")[0] == TEACHER]
        student = "promptkd" in f"{run.trainer}:{run.config}".lower()
        if not student or not specs or TEACHER_KEY in run.opts:
            return run
        teacher = replace(run, trainer=TEACHER, config=specs[0].partition(":")[2])
        folder = plan(teacher)[0].folder
        return replace(run, opts=(*run.opts, TEACHER_KEY, str(folder)), needs=(folder,))


def draw_missing(used: Sequence[tuple[str, str]], project: Path) -> None:
    """Draw the embedded data sets that are not there, so that no two jobs draw the same.

    Args:
        used: roots, from the project's folder, and stems.
        project: the project's folder.
    """
    folders = [project / root / name for root, name in used if is_embedded(name)]
    missing = [folder for folder in folders if not folder.is_dir()]
    if not missing:
        return
    from dassl.data.datasets import DATASET_REGISTRY

    import datasets.emoji  # noqa: F401  (registers the data sets)
    from datasets.emoji_files import ensure_dataset

    for folder in missing:
        kind = DATASET_REGISTRY.get(dataset_name(folder.name))
        ensure_dataset(folder, kind.split_file, kind.set_name, kind.domain)
