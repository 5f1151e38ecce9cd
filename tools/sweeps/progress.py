"""What a sweep shows: bars on a terminal, lines elsewhere, the failures at the end."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

from rich import progress as shown
from rich.console import Console
from rich.markup import escape

from tools.sweeps.protocols import Job
from tools.sweeps.schedule import Schedule, State
from tools.sweeps.workers import Launch

EPOCH = re.compile(r"epoch \[(\d+)/(\d+)\]")


class Bars:
    """One bar for the sweep and one for each running job."""

    def __init__(self, schedule: Schedule) -> None:
        self.project, self.total = schedule.project, len(schedule.jobs)
        self.finished = len(schedule.states)
        self.progress = shown.Progress(
            *("{task.description}", shown.BarColumn(), shown.MofNCompleteColumn()),
            *(shown.TimeElapsedColumn(), "left", shown.TimeRemainingColumn()),
            speed_estimate_period=3600,  # seconds: jobs take minutes
        )
        self.whole = self.progress.add_task("all jobs", total=self.total, completed=self.finished)
        self.bars: dict[Job, shown.TaskID | None] = {}
        self.since: dict[Job, float] = {}

    def start(self, job: Job) -> None:
        """Note the time; the bar appears with the log."""
        (self.project / job.log).unlink(missing_ok=True)  # of an earlier attempt
        self.bars[job], self.since[job] = None, time.monotonic()

    def update(self) -> None:
        """Move the bars to the epochs in the logs, in percent."""
        for job, bar in self.bars.items():
            log = self.project / job.log
            if bar is None and log.is_file():
                bar = self.bars[job] = self.progress.add_task(escape(job.name), total=100)
            if bar is not None:
                self.progress.update(bar, completed=round(100 * fraction_done(log)))

    def retry(self, job: Job, why: str) -> None:
        """Print why a job is tried again."""
        self._remove(job, f"{job.name}: {why}; trying again")

    def end(self, job: Job, state: State) -> None:
        """Print how a job ended."""
        seconds = time.monotonic() - self.since.get(job, time.monotonic())
        self.finished += 1
        self.progress.update(self.whole, completed=self.finished)
        result = f"{seconds:.0f} s" if state is State.DONE else state.value
        self._remove(job, f"[{self.finished}/{self.total}] {job.name}: {result}")

    def _remove(self, job: Job, line: str) -> None:
        if (bar := self.bars.pop(job, None)) is not None:
            self.progress.remove_task(bar)
        self.progress.print(escape(line), soft_wrap=True, highlight=False)


def read_log(log: Path) -> str:
    """Return a job's log; "" if there is none."""
    return log.read_text(errors="replace") if log.is_file() else ""


def fraction_done(log: Path) -> float:
    """Return which part of its epochs a log reports, 0 to 1; 0 if it names none."""
    found = EPOCH.findall(read_log(log))
    return int(found[-1][0]) / int(found[-1][1]) if found else 0.0


def show_plan(schedule: Schedule, launch: Launch) -> None:
    """Print every job, whether it is done, and its command line."""
    for job in schedule.jobs:
        if job in schedule.states:
            print(f"done: {job.name}")
            continue
        needs = [other.name for other in schedule.needed(job) if other not in schedule.states]
        print(f"to run: {job.name}{', after ' if needs else ''}{', '.join(needs)}")
        print(f"  {shlex.join(launch.command(job))}")
    print(f"{len(schedule.jobs)} jobs, {len(schedule.states)} done")


def show_failures(schedule: Schedule) -> int:
    """Print what failed, with the end of its log, and how many jobs need it; returns 1, or 0."""
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    failed = [job for job, state in schedule.states.items() if state is State.FAILED]
    for job in failed:
        log = schedule.project / job.log
        tail = "\n".join(read_log(log).splitlines()[-15:]) or "(no output)"
        console.print(f"failed: {job.name}: {schedule.reasons[job]}; the end of {log}:\n{tail}")
    skipped = list(schedule.states.values()).count(State.SKIPPED)
    if failed:
        console.print(f"{len(failed)} of {len(schedule.jobs)} jobs failed, {skipped} need them")
    return 1 if failed else 0
