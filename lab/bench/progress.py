"""How far a long measurement is, on stderr."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Report:
    """A line that changes on a terminal; elsewhere one line for each condition."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self.is_live = console.is_terminal
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        rare = {"refresh_per_second": 2}  # it must not disturb what is timed
        self.progress = Progress(*columns, console=console, transient=True, **rare)
        self.task = self.progress.add_task("", total=None)
        self.what = ""

    def __enter__(self) -> Report:
        if self.is_live:
            self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def start(self, what: str) -> None:
        """Name what is measured now."""
        self.what = what
        if not self.is_live:
            print(what, file=sys.stderr, flush=True)
        self.tell("")

    def tell(self, text: str) -> None:
        """Say where in it we are."""
        description = f"{self.what}: {text}" if text else self.what
        self.progress.update(self.task, description=description)
