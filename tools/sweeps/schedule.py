"""Which job runs when: after the jobs that it needs, again after a failure, never twice."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from tools.sweeps.protocols import Job
from tools.sweeps.workers import Ended, LocalWorkers, RayWorkers

if TYPE_CHECKING:
    from tools.sweeps.progress import Bars

POLL = 0.3  # seconds between two looks at the logs
USER_ERROR = 2  # exit code of train.py that no second attempt mends
MAX_LOSSES = 5  # times that a job may lose its machine, or be killed with it
# Exit codes of a job that was killed, or whose machine goes down.
KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)


class State(Enum):
    """What became of a job."""

    DONE_BEFORE = "done before"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "not run, because what it needs failed"


class Schedule:
    """The jobs of a sweep, below the folder `project`, and what became of them."""

    def __init__(self, jobs: Sequence[Job], retries: int, project: Path) -> None:
        self.jobs, self.retries, self.project = list(jobs), retries, project
        self.by_folder = {job.folder: job for job in self.jobs}
        self.reasons: dict[Job, str] = {}  # of failures
        self.failures: Counter[Job] = Counter()
        self.losses: Counter[Job] = Counter()
        self.states = {job: State.DONE_BEFORE for job in self.jobs if self.was_done(job)}

    def was_done(self, job: Job) -> bool:
        """Whether a job was done before this sweep, and all that it needs."""
        return job.is_done(self.project) and all(map(self.was_done, self.needed(job)))

    def needed(self, job: Job) -> list[Job]:
        """Return the jobs that a job needs."""
        return [self.by_folder[folder] for folder in job.needs]

    def left(self) -> list[Job]:
        """Return the jobs that have no state yet."""
        return [job for job in self.jobs if job not in self.states]

    def run(self, workers: LocalWorkers | RayWorkers, bars: Bars) -> None:
        """Run until every job has a state."""
        try:
            while self.left():
                self._start_ready(workers, bars)
                if workers.running:
                    for job, ended in workers.ended(POLL).items():
                        self._settle(job, ended, bars)
                    bars.update()
        finally:
            workers.close()

    def _start_ready(self, workers: LocalWorkers | RayWorkers, bars: Bars) -> None:
        for job in self.left():
            free = len(workers.running) < workers.places
            found = [self.states.get(other) for other in self.needed(job)]
            if State.FAILED in found or State.SKIPPED in found:
                self._close(job, State.SKIPPED, bars)
            elif None not in found and job not in workers.running and free:
                bars.start(job)
                workers.start(job)

    def _settle(self, job: Job, ended: Ended, bars: Bars) -> None:
        """The job is done, tried again, or has failed; a loss is no fault of the job."""
        if ended.code == 0 and job.is_done(self.project):
            self._close(job, State.DONE, bars)
            return
        lost = ended.code is None or ended.code in KILLED
        counts, most = (self.losses, MAX_LOSSES) if lost else (self.failures, self.retries)
        counts[job] += 1
        why = reason_of(ended)
        if counts[job] <= most and ended.code != USER_ERROR:
            bars.retry(job, why)
        else:
            self.reasons[job] = f"{why}, for the {counts[job]}th time" if lost else why
            self._close(job, State.FAILED, bars)

    def _close(self, job: Job, state: State, bars: Bars) -> None:
        self.states[job] = state
        bars.end(job, state)


def reason_of(ended: Ended) -> str:
    """Say why an attempt failed."""
    if ended.code is None:
        return f"its machine was lost ({ended.reason})"
    if ended.code in KILLED:
        return f"it was killed ({ended.code})"
    if ended.code == 0:
        return "it ended without results.json"
    return ended.reason or f"exit code {ended.code}"
