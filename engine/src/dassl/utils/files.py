"""What several processes write to: one at a time, and what a killed one has left is removed."""

from __future__ import annotations

import errno
import glob
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

__all__ = ["alone_with", "scratch_beside"]

logger = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of a file system


@contextmanager
def alone_with(target: Path) -> Iterator[None]:
    """Wait until no other process works on a file or folder, and keep others waiting meanwhile.

    Where the file system gives no locks, it warns and goes on.

    Args:
        target: The file or folder, which need not exist; the folder that it lies in is made.

    Raises:
        OSError: If that folder cannot be written to.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name}.lock")
    # It looks whether the file that it has locked is still there.
    lock = FileLock(path)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        where = target.parent
        logger.warning("%s gives no locks: see to it that no other process writes there", where)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


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
