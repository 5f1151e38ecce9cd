"""Timing: warm-up, rounds in which all works take turns, the median and the spread; progress.

Works that are compared share every round, so that a load on the machine slows all of them.
`torch.utils.benchmark` warms up before every measurement, which a step of 20 s does not allow.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from rich.console import Console

Work = Callable[[], object]
SLOW_S = 5.0  # a work that takes longer is run fewer times
SLOW_WARMUP, SLOW_ROUNDS = 1, 3


class Report:
    """Progress on stderr: a line for each condition; on a terminal also a status line."""

    def __init__(self) -> None:
        self.what = ""
        # Redrawn twice a second only: it must not disturb what is timed.
        self.status = Console(stderr=True).status("", refresh_per_second=2)

    def __enter__(self) -> Report:
        self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.status.stop()

    def start(self, what: str) -> None:
        """Name the condition that is measured now."""
        self.what = what
        print(what, file=sys.stderr, flush=True)
        self.update("")

    def update(self, text: str) -> None:
        """Show the current step of the condition."""
        self.status.update(f"{self.what}: {text}")


REPORT = Report()


@dataclass(frozen=True)
class Timing:
    """Seconds of one call in each round."""

    seconds: tuple[float, ...]
    warmup: int

    @property
    def median(self) -> float:
        """Median over the rounds."""
        return median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Fastest and slowest round."""
        return min(self.seconds), max(self.seconds)


@dataclass(frozen=True)
class Clock:
    """How works are timed."""

    warmup: int = 3  # calls before the clock runs
    rounds: int = 5  # times that every work has its turn
    round_s: float = 1.0  # least seconds of a turn; a quick work is called several times
    budget_s: float = math.inf  # once so many seconds have passed, three rounds are enough
    device: str = "cpu"  # is synchronised around the clock, and never in between
    now: Callable[[], float] = time.perf_counter  # seconds

    def synchronised(self) -> float:
        """The time, once the device has finished its work."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        return self.now()

    def turn(self, work: Work, calls: int = 1) -> float:
        """Seconds of one of so many calls in a row."""
        start = self.synchronised()
        for _ in range(calls):
            work()
        return (self.synchronised() - start) / calls

    def compare(self, works: Mapping[str, Work]) -> dict[str, Timing]:
        """Time works in turns: first, second, ..., first, second, ...

        Where one of them takes more than `SLOW_S` seconds, all have one warm-up and three rounds.
        """
        start, warm = self.now(), {}
        for name, work in works.items():
            REPORT.update(f"warm-up, {name}")
            warm[name] = self.turn(work)
        is_slow = max(warm.values()) > SLOW_S
        warmup = SLOW_WARMUP if is_slow else max(1, self.warmup)
        rounds = min(self.rounds, SLOW_ROUNDS) if is_slow else self.rounds
        for _ in range(warmup - 1):
            warm = {name: min(warm[name], self.turn(work)) for name, work in works.items()}
        calls = {name: max(1, math.ceil(self.round_s / max(s, 1e-9))) for name, s in warm.items()}
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for i in range(rounds):
            if i >= SLOW_ROUNDS and self.now() - start > self.budget_s:
                break
            for name, work in works.items():
                REPORT.update(f"round {i + 1} of {rounds}, {name}")
                seconds[name].append(self.turn(work, calls[name]))
        return {name: Timing(tuple(found), warmup) for name, found in seconds.items()}
