"""Errors that a user can mend, each as one sentence: what happened, where, what to do.

Needs nothing but Python's own library, so that it speaks when an import fails.
"""

from __future__ import annotations

import errno
import re
import traceback

# Input, files, packages, memory, and a loss that diverged.
USER_ERRORS = (ValueError, OSError, ModuleNotFoundError, FloatingPointError, MemoryError)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BATCHES = (
    "take smaller batches (DATALOADER.TRAIN_X.BATCH_SIZE, DATALOADER.TEST.BATCH_SIZE) or fewer "
    "prompts at a time (MODEL.TEXT_CHUNK)"
)
GPU = f"the GPU is out of memory; {BATCHES}"
HOST = (
    f"out of memory; {BATCHES}, or fewer workers (DATALOADER.NUM_WORKERS), or keep no pictures "
    "(DATALOADER.CACHE_MB 0)"
)
THREADS = (
    "the system lets no more threads or processes start; lower DATALOADER.NUM_WORKERS, or raise "
    "the limit (ulimit -u)"
)
FILES = "too many open files; lower DATALOADER.NUM_WORKERS, or raise the limit (ulimit -n)"
SHM = (
    "/dev/shm, where workers leave their batches, is full or missing; make it larger (docker run "
    "--shm-size 8g), or set DATALOADER.NUM_WORKERS 0"
)
WORKER = (
    "a worker that reads pictures was killed, as where memory is short; lower "
    "DATALOADER.NUM_WORKERS (0: no workers)"
)
# Patterns of what torch and Python say, and what is meant; the first that is found counts.
PATTERNS = {
    r"out of memory\. Tried|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED": GPU,
    r"[Tt]oo many open files|items of ancdata": FILES,
    r"shared memory|file </torch_|signal: Bus error": SHM,
    r"DataLoader worker .*(killed|exited)": WORKER,
    r"DefaultCPUAllocator|bad_alloc|[Cc]annot allocate memory|not enough memory": HOST,
    r"can't start new thread|Thread creation failed|temporarily unavailable": THREADS,
}
NUMBERS = {errno.EMFILE: FILES, errno.ENFILE: FILES, errno.ENOMEM: HOST, errno.EAGAIN: THREADS}


def shortage(error: BaseException) -> str:
    """What the machine is short of, and what to do; "" for an error of another kind."""
    if not isinstance(error, (RuntimeError, OSError, MemoryError, EOFError)):
        return ""
    if isinstance(error, OSError) and error.filename is None:
        if error.errno in NUMBERS:
            return NUMBERS[error.errno]
        if _passes(error, "multiprocessing/synchronize"):  # a semaphore is a file there
            return SHM
    text = f"{error} {error.__cause__ or ''}"
    if (code := re.search(r"with exit code (\d+)\.", text)) and int(code[1]) in NUMBERS:
        return NUMBERS[int(code[1])]  # a worker ended by it
    if isinstance(error, (ConnectionError, EOFError)) and _passes(error, "torch/utils/data"):
        return WORKER
    found = (advice for pattern, advice in PATTERNS.items() if re.search(pattern, text))
    return next(found, HOST if isinstance(error, MemoryError) else "")


def _passes(error: BaseException, part: str) -> bool:
    """Whether an error comes out of a file whose path has a part."""
    return any(part in frame.filename for frame in traceback.extract_tb(error.__traceback__))


def explain(error: BaseException) -> str:
    """One sentence for an error that the user can mend; "" for another."""
    return shortage(error) or (sentence(error) if isinstance(error, USER_ERRORS) else "")


def sentence(error: BaseException) -> str:
    """One sentence for any error."""
    if short := shortage(error):
        return short
    if isinstance(error, OSError) and error.errno is not None:
        return _of_the_system(error)
    text = str(error)
    if "Original Traceback" in text:  # a loader passes on the error of its worker
        text = text.strip().splitlines()[-1].partition(": ")[2]
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
        return f"{where} lies on a read-only file system; choose another folder"
    return f"{error.strerror}: {where}"
