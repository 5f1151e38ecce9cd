"""Progress of a long measurement, on stderr."""

from __future__ import annotations

import sys

from rich.console import Console


class Report:
    """A line for each condition; on a terminal also a status line, which changes."""

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
