"""End children with their parent, treat SIGTERM as Ctrl-C, and guard the folder of a run.

Usage: python processes.py PARENT FOLDER [NEED ...] -- COMMAND ...

The guard runs COMMAND unless FOLDER has its results, and locks FOLDER until COMMAND ends. A second
attempt, on another machine, waits and then finds the results. COMMAND ends with its parent (on
Linux). Imports Python's own library alone.
"""

import ctypes
import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def is_done(folder: Path, needs: Iterable[Path]) -> bool:
    """Whether a run left results, made with the weights that the runs it needs have learned."""
    # By digests of the learned weights, which results hold: times of files differ with the clocks.
    try:
        own, *others = (content_of_results(path) for path in (folder, *needs))
    except FileNotFoundError:
        return False
    made_with = (own.get("learned"), str(own.get("teacher")).rpartition(", ")[2])
    return all(other.get("learned") in made_with for other in others)


def content_of_results(folder: Path) -> dict[str, Any]:
    """The content of results.json, which must be there; a damaged one is "learned: unknown"."""
    try:
        found = json.loads((folder / "results.json").read_text("utf-8", "replace"))
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"learned": "unknown"}


def wait_for_lock(folder: Path) -> None:
    """Lock a folder for this process and the command that it becomes."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".sweep.lock", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(handle, True)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another process that works on {folder}", flush=True)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        print(f"{folder} gives no locks: see to it that no other process works on it", flush=True)


def has_work(folder: Path, needs: Iterable[Path]) -> bool:
    """Lock a job's folder as soon as it is free; whether its results are still to be made."""
    wait_for_lock(folder)
    if found := is_done(folder, needs):
        print(f"done meanwhile: {folder}", flush=True)
    return not found


def end_with(parent: int) -> None:
    """Get SIGTERM when the parent dies; leave at once if it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)


def bound() -> Callable[[], None]:
    """A `preexec_fn` that ends the child with this process."""
    return partial(end_with, os.getpid())


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Slurm and others send it to end a run; handled like Ctrl-C."""


def raise_at_sigterm() -> None:
    """Raise `Terminated` at the first SIGTERM; processes that are forked end by it at once."""
    owner = os.getpid()

    def end(sign: int, _: object) -> None:
        signal.signal(sign, signal.SIG_IGN if os.getpid() == owner else signal.SIG_DFL)
        if os.getpid() == owner:
            raise Terminated
        os.kill(os.getpid(), sign)

    signal.signal(signal.SIGTERM, end)


def exit_code_of(interrupt: KeyboardInterrupt) -> int:
    """The exit code, as a shell says it: 143 for SIGTERM, 130 for Ctrl-C."""
    return 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)


def main(arguments: list[str]) -> None:
    """Wait for the folder; then become the command, unless its results are there."""
    parent, folder, *rest = arguments
    cut = rest.index("--")
    needs, command = rest[:cut], rest[cut + 1 :]
    end_with(int(parent))
    if has_work(Path(folder), map(Path, needs)):
        os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
