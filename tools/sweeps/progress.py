"""What a sweep shows: bars on a terminal, lines elsewhere, the failures at the end."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import TimeElapsedColumn as Elapsed

from tools.sweeps.execute import Launch, fraction_done, tail
from tools.sweeps.protocols import Job
from tools.sweeps.schedule import Schedule, State


class Bars:
    """One bar for the sweep and one for each job that is at work.

    Args:
        schedule: whose jobs are shown.
        project: folder that the jobs' folders lie below.
    """

    def __init__(self, schedule: Schedule, project: Path) -> None:
        self.project = project
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Elapsed(),
            TextColumn("left"),
            TimeRemainingColumn(),
            speed_estimate_period=3600,  # seconds: jobs take minutes
        )
        before = len(schedule.states)
        self.total, self.finished = len(schedule.jobs), before
        self.whole = self.progress.add_task("all jobs", total=self.total, completed=before)
        self.bars: dict[Job, TaskID | None] = {}
        self.since: dict[Job, float] = {}

    def starts(self, job: Job) -> None:
        """Remember it; the bar appears with its log."""
        (self.project / job.log).unlink(missing_ok=True)  # of an earlier attempt
        self.bars[job], self.since[job] = None, time.monotonic()

    def look(self) -> None:
        """Move the bars to what the logs say, in percent of the epochs."""
        for job, bar in self.bars.items():
            log = self.project / job.log
            if bar is None and log.is_file():
                bar = self.bars[job] = self.progress.add_task(escape(job.name), total=100)
            if bar is not None:
                self.progress.update(bar, completed=round(100 * fraction_done(log)))

    def failed(self, job: Job, why: str) -> None:
        """Say why it will be tried again."""
        self._remove(job)
        self._say(f"{job.name}: {why}; trying again")

    def _say(self, line: str) -> None:
        self.progress.print(escape(line), soft_wrap=True, highlight=False)

    def _remove(self, job: Job) -> None:
        if (bar := self.bars.pop(job, None)) is not None:
            self.progress.remove_task(bar)

    def ended(self, job: Job, state: State) -> None:
        """Take its bar away and say how it went."""
        self._remove(job)
        seconds = time.monotonic() - self.since.get(job, time.monotonic())
        self.finished += 1
        self.progress.update(self.whole, completed=self.finished)
        said = f"{seconds:.0f} s" if state is State.DONE else state.value
        self._say(f"[{self.finished}/{self.total}] {job.name}: {said}")


def show_plan(schedule: Schedule, launch: Launch) -> None:
    """Print every job, whether it is done, and its command line."""
    for job in schedule.jobs:
        state = schedule.states.get(job)
        needs = [other for other in schedule.needed(job) if other not in schedule.states]
        after = f", after {', '.join(other.name for other in needs)}" if needs else ""
        print(f"{'done' if state else 'to run'}: {job.name}{after}")
        if not state:
            print(f"  {shlex.join(launch.command(job))}")
    print(f"{len(schedule.jobs)} jobs, {len(schedule.states)} done")


def show_failures(schedule: Schedule, project: Path) -> int:
    """Print what failed, with the end of its log, and what was therefore not run.

    Returns:
        The exit code: 1 if anything failed.
    """
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    failed = [job for job, state in schedule.states.items() if state is State.FAILED]
    for job in failed:
        log = project / job.log
        reason = f"{schedule.reasons[job]}; the end of {log}"
        console.print(f"failed: {job.name}: {reason}:\n{tail(log)}")
    skipped = sum(state is State.SKIPPED for state in schedule.states.values())
    if failed:
        console.print(f"{len(failed)} of {len(schedule.jobs)} jobs failed, {skipped} need them")
    return 1 if failed else 0
