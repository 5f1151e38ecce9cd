"""Run base-to-new experiments side by side, with a progress bar; scripts/compare.sh begins with it.

Usage:
    python tools/side_by_side.py emoji_animals emoji_food [--trainers CoOp Spotlighter:CONFIG]
        [--seeds 1 2 3] [--output output/compare]

The data sets run in parallel, one process each, as far as there are cores; the trainers of a data
set run one after the other, because the first of them may have to create the pictures, and because
PromptKD learns from PromptSRC where both run.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import count, product
from pathlib import Path
from typing import NamedTuple

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

TRAINERS = ("ZeroshotCLIP", "CoOp", "Spotlighter")
TEACHER = "PromptSRC"
TEACHER_KEY = "TRAINER.PROMPTKD.TEACHER_DIR"
POLL = 0.3  # seconds between two looks at a log
EPOCH = re.compile(r"epoch \[(\d+)/(\d+)\]")


class Run(NamedTuple):
    """One call of scripts/base2new.sh."""

    trainer: str  # or trainer:config
    dataset: str
    seed: int
    teacher: str = ""  # folder of the run that a PromptKD student learns from

    def __str__(self) -> str:
        return f"{self.trainer} on {self.dataset}, seed {self.seed}"

    def command(self) -> list[str]:
        """Return the command line."""
        trainer, _, config = self.trainer.partition(":")
        words = ["bash", "scripts/base2new.sh", trainer, self.dataset, str(self.seed)]
        return [*words, config] if config else words

    def environment(self) -> dict[str, str]:
        """Return what it needs beside the command line."""
        return {"OPTS": f"{TEACHER_KEY} {self.teacher}"} if self.teacher else {}

    def log(self, output: Path) -> Path:
        """Return where its messages go."""
        name = self.trainer.replace(":", "-")
        return output / "logs" / f"{name}-{self.dataset}-seed{self.seed}.txt"


class RunError(Exception):
    """A run ended with an error."""


class SideBySide:
    """Runs and the progress bar that shows them.

    Args:
        output: folder for results and logs.
        threads: threads of each process.
        total: number of runs.
    """

    def __init__(self, output: Path, threads: int, total: int) -> None:
        self.output, self.total = output, total
        self.environment = os.environ | {"OUTPUT": str(output), "OMP_NUM_THREADS": str(threads)}
        self.stop = threading.Event()
        self.counter = count(1)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
        )

    def run_all(self, chains: Sequence[Sequence[Run]], jobs: int) -> None:
        """Run the chains, `jobs` of them at a time.

        Raises:
            RunError: a run ended with an error; the others are stopped.
        """
        with self.progress, ThreadPoolExecutor(jobs) as pool:
            try:
                for future in as_completed([pool.submit(self.run_chain, c) for c in chains]):
                    future.result()
            finally:
                self.stop.set()

    def run_chain(self, chain: Sequence[Run]) -> None:
        """Run one after the other; the bar belongs to the chain."""
        task = self.progress.add_task(chain[0].dataset, total=len(chain))
        for position, run in enumerate(chain):
            self.progress.update(task, description=f"{run.dataset}: {run.trainer}")
            start = time.monotonic()
            self.run_one(run, task, position)
            if self.stop.is_set():
                return
            number = next(self.counter)
            self.progress.print(f"[{number}/{self.total}] {run}: {time.monotonic() - start:.0f} s")

    def run_one(self, run: Run, task: TaskID, position: int) -> None:
        """Run, while the bar follows the epochs in the log."""
        log = run.log(self.output)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            process = subprocess.Popen(
                run.command(),
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self.environment | run.environment(),
                start_new_session=True,
            )
        while process.poll() is None:
            if self.stop.wait(POLL):
                os.killpg(process.pid, signal.SIGTERM)
                break
            self.progress.update(task, completed=position + fraction_done(log))
        if process.wait() != 0 and not self.stop.is_set():
            self.stop.set()
            raise RunError(f"{run} failed; the end of {log}:\n{tail(log)}")
        self.progress.update(task, completed=position + 1)


def fraction_done(log: Path) -> float:
    """Return which part of its epochs a log has seen, 0 to 1; 0 if it names none."""
    found = EPOCH.findall(log.read_text(errors="replace"))
    return int(found[-1][0]) / int(found[-1][1]) if found else 0.0


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def plan(
    datasets: Sequence[str], seeds: Sequence[int], trainers: Sequence[str], output: Path
) -> list[list[Run]]:
    """Return the runs, one chain a data set."""

    def run(dataset: str, seed: int, trainer: str) -> Run:
        learns = "promptkd" in trainer.lower() and TEACHER in trainers
        folder = f"{dataset}/shots_16/{TEACHER}/tiny_emoji/seed{seed}"
        return Run(trainer, dataset, seed, f"{output}/train_base/{folder}" if learns else "")

    return [
        [run(dataset, seed, trainer) for seed, trainer in product(seeds, trainers)]
        for dataset in datasets
    ]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("datasets", nargs="+", help="stems of configs/datasets")
    parser.add_argument("--trainers", nargs="+", default=list(TRAINERS), help="TRAINER[:CONFIG]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--output", type=Path, default=Path("output/compare"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; returns the exit code."""
    args = parse_arguments(arguments)
    chains = plan(args.datasets, args.seeds, args.trainers, args.output)
    jobs = max(1, min(args.jobs, len(chains)))
    threads = max(1, (os.cpu_count() or 1) // jobs)
    try:
        SideBySide(args.output, threads, sum(map(len, chains))).run_all(chains, jobs)
    except RunError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
