"""An error that a user can mend -> one sentence: what happened, where, what to do."""

from __future__ import annotations

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sentence(error: BaseException) -> str:
    """One sentence for an error."""
    if isinstance(error, OSError) and error.errno is not None:
        return _of_the_system(error)
    text = str(error)
    if "Original Traceback" in text:  # as a loader passes on what its worker met
        text = text.strip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, MemoryError):
        text = f"out of memory ({text}); take smaller batches, DATALOADER...BATCH_SIZE"
    return " ".join(text.split())


def _of_the_system(error: OSError) -> str:
    where = error.filename or "a file"
    if error.errno in FULL:
        return (
            f"no space left for {where}; make room (TRAIN.KEEP_CHECKPOINTS keeps fewer) and give "
            "the same command again: what was written before is whole"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission for {where}; change its owner or mode, or choose another folder"
    if error.errno == errno.EROFS:
        return f"{where} lies on a read-only file system; choose another --output-dir"
    return f"{error.strerror}: {where}"
