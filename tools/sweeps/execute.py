"""Run jobs on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runs import processes as guard
from tools.sweeps import names
from tools.sweeps.protocols import Job

PATIENCE = 10  # seconds that a job has to end after it was asked to


@dataclass(frozen=True)
class Launch:
    """How a job is started."""

    threads: int = 1  # of each process, fixed: results depend on it in the last digits
    processes: int = 1  # more than 1: that many, a GPU each, by torchrun
    project: Path = names.PROJECT  # folder of train.py

    def command(self, job: Job) -> list[str]:
        """Return the job as a command line."""
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        several = [*torchrun, str(self.processes)] if self.processes > 1 else []
        return [sys.executable, *several, "train.py", *job.words]

    def start(self, job: Job) -> subprocess.Popen:
        """Start the job in a process group of its own, behind `guard`; it writes to its log."""
        folders = [str(self.project / folder) for folder in (job.folder, *job.needs)]
        Path(folders[0]).mkdir(parents=True, exist_ok=True)
        gate = [sys.executable, guard.__file__, str(os.getpid()), *folders, "--"]
        options = {"cwd": self.project, "start_new_session": True, "stdin": subprocess.DEVNULL}
        options["env"] = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        with (self.project / job.log).open("w") as log:
            streams = {"stdout": log, "stderr": subprocess.STDOUT}
            return subprocess.Popen([*gate, *self.command(job)], **options, **streams)


class Ended(NamedTuple):
    """How an attempt ended: the exit code, None where the machine was lost."""

    code: int | None
    reason: str = ""


def stop(process: subprocess.Popen) -> None:
    """Ask a job and its children to end; kill them if they do not."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
            return


class LocalWorkers:
    """Jobs as processes of this machine, `places` at a time, in order."""

    def __init__(self, launch: Launch, places: int = 1) -> None:
        self.launch, self.places = launch, places
        self.running: dict[Job, subprocess.Popen] = {}

    def start(self, job: Job) -> None:
        """Start a job."""
        self.running[job] = self.launch.start(job)

    def ended(self, seconds: float) -> dict[Job, Ended]:
        """Wait a while for jobs to end; return those that have."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            next(iter(self.running.values())).wait(seconds)
        codes = {job: process.poll() for job, process in self.running.items()}
        over = {job: Ended(code) for job, code in codes.items() if code is not None}
        self.running = {job: p for job, p in self.running.items() if job not in over}
        return over

    def close(self) -> None:
        """Stop the jobs that run."""
        for process in self.running.values():
            stop(process)
