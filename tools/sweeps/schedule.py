"""Which job runs when: after the jobs that it needs, again after a failure, never twice."""

import re
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import cache
from pathlib import Path

from rich import progress as shown
from rich.markup import escape

from tools.sweeps.names import default_rows
from tools.sweeps.protocols import Job
from tools.sweeps.workers import POLL, Ended, LocalWorkers, RayWorkers

EPOCH = re.compile(r"epoch \[(\d+)/(\d+)\]")  # in a job's log
USER_ERROR = 2  # exit code of train.py that no second attempt mends
MAX_LOSSES = 5  # times that a job may lose its machine, or be killed with it
BESIDE = 10  # steps for each class, about as long as start and evaluation of a job
KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)  # exit codes


class State(Enum):
    """What became of a job."""

    DONE_BEFORE = "done before"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "not run, because what it needs failed"


def longest_first(jobs: Sequence[Job]) -> list[Job]:
    """Return jobs in an order that fills several places well: the most steps first.

    Steps are those of a training and of the jobs that wait for it; short trainings fill the end. A
    test stands behind its training: a sweep that is stopped leaves whole results. Trainings of
    equal length go by trainer, as two that begin at once on one data set would compute the same
    features. The last trainer of the tables begins: it keeps features of patches (FEATURES.KEEP),
    which serve the others, too.
    """
    listed = {name: place for place, name in enumerate(default_rows())}
    by_folder, waiting = {job.folder: job for job in jobs}, defaultdict(list)
    for job in jobs:
        for folder in job.needs:
            waiting[folder].append(job)

    @cache
    def length(job: Job) -> float:
        """Steps of the longest chain that begins with a job."""
        return job.steps + max(map(length, waiting[job.folder]), default=0)

    def place(job: Job) -> tuple[float, int, str]:
        is_test = job.needs and not job.steps
        steps = length(by_folder[job.needs[-1]] if is_test else job)
        spec = job.name.partition(" ")[0]  # TRAINER:CONFIG
        return -steps, -listed.get(spec.partition(":")[0], 0), spec

    return sorted(jobs, key=place)


def work_of(job: Job) -> float:
    """Return how long a job is, in steps for each class."""
    return job.steps + BESIDE


class Bars:
    """One bar for the sweep, by steps, and one for each running job; lines without a terminal."""

    def __init__(self, project: Path, jobs: Sequence[Job], finished: Iterable[Job]) -> None:
        self.project, self.total, self.finished = project, len(jobs), set(finished)
        self.progress = shown.Progress(
            *("{task.description}", shown.BarColumn(), shown.TaskProgressColumn()),
            *(shown.TimeElapsedColumn(), "left", shown.TimeRemainingColumn()),
            speed_estimate_period=3600,  # seconds: jobs take minutes
        )
        work, done = sum(map(work_of, jobs)), sum(map(work_of, self.finished))
        self.whole = self.progress.add_task("all jobs", total=work, completed=done)
        self.bars: dict[Job, shown.TaskID | None] = {}
        self.since: dict[Job, float] = {}

    def start(self, job: Job) -> None:
        """Note the time; the bar appears with the log."""
        (self.project / job.log).unlink(missing_ok=True)  # of an earlier attempt
        self.bars[job], self.since[job] = None, time.monotonic()

    def update(self) -> None:
        """Move the bars to the epochs in the logs."""
        done = sum(map(work_of, self.finished))
        for job, bar in self.bars.items():
            log = self.project / job.log
            if bar is None and log.is_file():
                bar = self.bars[job] = self.progress.add_task(escape(job.name), total=100)
            if bar is not None:
                part = fraction_done(log)
                self.progress.update(bar, completed=100 * part)
                done += part * job.steps
        counted = f"all jobs {len(self.finished)}/{self.total}"
        self.progress.update(self.whole, completed=done, description=counted)

    def end(self, job: Job, state: State) -> None:
        """Print how a job ended."""
        seconds = time.monotonic() - self.since.get(job, time.monotonic())
        self.finished.add(job)
        result = f"{seconds:.0f} s" if state is State.DONE else state.value
        self.remove(job, f"[{len(self.finished)}/{self.total}] {job.name}: {result}")
        self.update()

    def remove(self, job: Job, line: str) -> None:
        """Remove a job's bar and print why."""
        if (bar := self.bars.pop(job, None)) is not None:
            self.progress.remove_task(bar)
        self.progress.print(escape(line), soft_wrap=True, highlight=False)


class Schedule:
    """The jobs of a sweep, below the folder `project`, and what became of them."""

    def __init__(self, jobs: Sequence[Job], retries: int, project: Path) -> None:
        self.jobs, self.retries, self.project = list(jobs), retries, project
        self.by_folder = {job.folder: job for job in self.jobs}
        self.reasons: dict[Job, str] = {}  # of failures
        self.failures, self.losses = Counter(), Counter()
        self.states = {job: State.DONE_BEFORE for job in self.jobs if self.was_done(job)}
        self.bars = Bars(project, self.jobs, self.states)

    def was_done(self, job: Job) -> bool:
        """Whether a job was done before this sweep, and all that it needs."""
        return job.is_done(self.project) and all(map(self.was_done, self.needed(job)))

    def needed(self, job: Job) -> list[Job]:
        """Return the jobs that a job needs."""
        return [self.by_folder[folder] for folder in job.needs]

    def left(self) -> list[Job]:
        """Return the jobs that have no state yet."""
        return [job for job in self.jobs if job not in self.states]

    def run(self, workers: LocalWorkers | RayWorkers) -> None:
        """Run until every job has a state."""
        try:
            while self.left():
                self._start_ready(workers)
                if workers.running:
                    for job, ended in workers.ended(POLL).items():
                        self._settle(job, ended)
                    self.bars.update()
        finally:
            workers.close()

    def _start_ready(self, workers: LocalWorkers | RayWorkers) -> None:
        for job in self.left():
            free = len(workers.running) < workers.places
            found = [self.states.get(other) for other in self.needed(job)]
            if State.FAILED in found or State.SKIPPED in found:
                self._close(job, State.SKIPPED)
            elif None not in found and job not in workers.running and free:
                self.bars.start(job)
                workers.start(job)

    def _settle(self, job: Job, ended: Ended) -> None:
        """The job is done, tried again, or has failed; a loss is no fault of the job."""
        if ended.code == 0 and job.is_done(self.project):
            self._close(job, State.DONE)
            return
        lost = ended.code is None or ended.code in KILLED
        counts, most = (self.losses, MAX_LOSSES) if lost else (self.failures, self.retries)
        counts[job] += 1
        why = reason_of(ended)
        if counts[job] <= most and ended.code != USER_ERROR:
            self.bars.remove(job, f"{job.name}: {why}; trying again")
        else:
            self.reasons[job] = f"{why}, for the {counts[job]}th time" if lost else why
            self._close(job, State.FAILED)

    def _close(self, job: Job, state: State) -> None:
        self.states[job] = state
        self.bars.end(job, state)


def reason_of(ended: Ended) -> str:
    """Return why an attempt failed."""
    if ended.code is None:
        return f"its machine was lost ({ended.reason})"
    if ended.code in KILLED:
        return f"it was killed ({ended.code})"
    if ended.code == 0:
        return "it ended without results.json"
    return ended.reason or f"exit code {ended.code}"


def read_log(log: Path) -> str:
    """Return a job's log; "" if there is none."""
    return log.read_text(errors="replace") if log.is_file() else ""


def fraction_done(log: Path) -> float:
    """Return which part of its epochs a log reports, 0 to 1; 0 if it names none."""
    found = EPOCH.findall(read_log(log))
    return int(found[-1][0]) / int(found[-1][1]) if found else 0.0
