"""Which job runs when: after what it needs, again after a failure, never twice."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Protocol

from tools.sweeps.execute import Ended
from tools.sweeps.protocols import Job

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


class Workers(Protocol):
    """Where jobs run."""

    running: dict

    def has_room(self) -> bool:
        """Whether another job may start."""

    def start(self, job: Job) -> None:
        """Start a job."""

    def ended(self, seconds: float) -> dict[Job, Ended]:
        """Jobs that have ended; waits a while for one."""

    def close(self) -> None:
        """Stop what runs."""


class Watcher(Protocol):
    """Who is told."""

    def starts(self, job: Job) -> None:
        """A job is about to be handed over."""

    def look(self) -> None:
        """Some time has passed."""

    def failed(self, job: Job, why: str) -> None:
        """An attempt has failed, and the job will be tried again."""

    def ended(self, job: Job, state: State) -> None:
        """No more attempts at a job."""


class Schedule:
    """The jobs of a sweep and what became of them.

    Args:
        jobs: all that belong together.
        retries: further attempts after one that failed.
        project: folder that the jobs' folders lie below.
    """

    def __init__(self, jobs: Sequence[Job], retries: int, project: Path) -> None:
        self.jobs, self.retries, self.project = list(jobs), retries, project
        self.by_folder = {job.folder: job for job in self.jobs}
        self.states: dict[Job, State] = {}
        self.reasons: dict[Job, str] = {}  # of failures
        self.failures = dict.fromkeys(self.jobs, 0)
        self.losses = dict.fromkeys(self.jobs, 0)
        self.states |= {job: State.DONE_BEFORE for job in self.jobs if self.was_done(job)}

    def was_done(self, job: Job) -> bool:
        """Whether a job was done before this sweep, and all that it needs."""
        return job.is_done(self.project) and all(map(self.was_done, self.needed(job)))

    def needed(self, job: Job) -> list[Job]:
        """The jobs that a job needs."""
        return [self.by_folder[folder] for folder in job.needs]

    def left(self) -> list[Job]:
        """Jobs that nothing is known of yet."""
        return [job for job in self.jobs if job not in self.states]

    def run(self, workers: Workers, watcher: Watcher) -> None:
        """Bring every job to its end."""
        try:
            while self.left():
                self._start_ready(workers, watcher)
                if not workers.running:
                    continue
                for job, ended in workers.ended(POLL).items():
                    self._settle(job, ended, watcher)
                watcher.look()
        finally:
            workers.close()

    def _start_ready(self, workers: Workers, watcher: Watcher) -> None:
        for job in self.left():
            found = [self.states.get(other) for other in self.needed(job)]
            if State.FAILED in found or State.SKIPPED in found:
                self._close(job, State.SKIPPED, watcher)
            elif None not in found and job not in workers.running and workers.has_room():
                watcher.starts(job)
                workers.start(job)

    def _settle(self, job: Job, ended: Ended, watcher: Watcher) -> None:
        """Done, to be tried again, or failed."""
        if ended.code is None or ended.code in KILLED:
            self._lose(job, ended, watcher)
            return
        if ended.code == 0 and job.is_done(self.project):
            self._close(job, State.DONE, watcher)
            return
        why = ended.reason or f"exit code {ended.code}"
        why = "it ended without results.json" if ended.code == 0 else why
        self.failures[job] += 1
        if ended.code == USER_ERROR or self.failures[job] > self.retries:
            self.reasons[job] = why
            self._close(job, State.FAILED, watcher)
        else:
            watcher.failed(job, why)

    def _lose(self, job: Job, ended: Ended, watcher: Watcher) -> None:
        """Not the job's fault, unless it happens again and again, as where memory is short."""
        self.losses[job] += 1
        lost = ended.code is None
        why = f"its machine was lost ({ended.reason})" if lost else f"it was killed ({ended.code})"
        if self.losses[job] > MAX_LOSSES:
            self.reasons[job] = f"{why}, for the {self.losses[job]}th time"
            self._close(job, State.FAILED, watcher)
        else:
            watcher.failed(job, why)

    def _close(self, job: Job, state: State, watcher: Watcher) -> None:
        self.states[job] = state
        watcher.ended(job, state)
