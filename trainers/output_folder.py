"""The folder a run writes to: one run at a time, and every file whole or not there."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

LOCK = ".lock"


@contextmanager
def sole_writer(directory: str | Path) -> Iterator[None]:
    """Keep other runs out of a folder, which is made if need be, until the block or process ends.

    Raises:
        BlockingIOError: another run writes there.
        OSError: the folder cannot be written to.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        opened = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        error.filename = str(folder)  # that is what cannot be written to
        raise
    with opened as file:
        try:
            # A lock of the process, not of the open file: workers that outlive it do not keep it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise BlockingIOError(
                    f"another run ({file.read().strip()}) is writing to {folder}; wait for its "
                    "end, or choose another --output-dir"
                ) from None
            logger.warning("%s gives no locks: see to it that no other run writes there", folder)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, even if the machine stops meanwhile."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        error.filename = str(path)  # a failed write does not say where
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def what_is_left(folder: Path, resume: str) -> str:
    """A sentence for a training that was stopped: what there is, and what the same command does.

    Args:
        folder: OUTPUT_DIR.
        resume: RESUME.
    """
    kept = last_checkpoint(folder)
    if kept is None:
        begins = f"begins again from {resume}" if resume else "begins anew"
        return f"no checkpoint was written to {folder}, so the same command {begins}"
    epoch = kept.name.rpartition("-")[2]
    which = f"the checkpoint of epoch {epoch}" if epoch.isdecimal() else "the best checkpoint"
    return f"{which} is {kept}; the same command goes on from there"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in the output folder of a run, if it has one."""
    for pointer in folder.glob("*/checkpoint"):
        named = pointer.with_name(pointer.read_text("utf-8", "replace").strip())
        if named.is_file():
            return named
    return None
