"""What several processes write to: one at a time, and what a killed one has left is removed."""

from __future__ import annotations

import glob
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

__all__ = ["alone_with", "scratch_beside"]


@contextmanager
def alone_with(target: Path) -> Iterator[None]:
    """Wait until no other process works on a file or folder, and keep others waiting meanwhile.

    Args:
        target: The file or folder, which need not exist; the folder that it lies in is made.

    Raises:
        OSError: If that folder cannot be written to.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(f".{target.name}.lock")
    with FileLock(lock):  # it looks whether the file that it has locked is still there
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """A new folder beside a file or folder, to make it in; only one process has it at a time.

    Args:
        target: What will be renamed from there.

    Raises:
        OSError: If the folder that it lies in cannot be written to.
    """
    prefix = f".{target.name}.unfinished-"
    with alone_with(target):
        for left in target.parent.glob(f"{glob.escape(prefix)}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(
            dir=target.parent, prefix=prefix, ignore_cleanup_errors=True
        ) as name:
            yield Path(name)
