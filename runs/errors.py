"""Errors that a user can correct, each as one sentence: what happened, where, what to do.

It imports Python's own library alone, so that it works when another import fails.
"""

import errno
import re
import traceback

# Input, files, packages, memory, and a loss that diverged.
USER_ERRORS = (ValueError, OSError, ModuleNotFoundError, FloatingPointError, MemoryError)
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
NO_SPACE = (
    "no space left for {}; make room (TRAIN.KEEP_CHECKPOINTS keeps fewer) and give the same "
    "command again: what was written before is whole"
)
NO_PERMISSION = "no permission for {}; change its owner or mode, or choose another folder"
OF_A_PATH = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), NO_SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM), NO_PERMISSION),
    errno.EROFS: "{} lies on a read-only file system; choose another folder",
}
# Patterns of messages of torch and Python, and what they mean; the first that is found counts.
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
    """What the machine lacks, and what to do; "" for an error of another kind."""
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
    """One sentence for an error that the user can correct; "" for another."""
    return shortage(error) or (sentence(error) if isinstance(error, USER_ERRORS) else "")


def sentence(error: BaseException) -> str:
    """One sentence for any error."""
    if short := shortage(error):
        return short
    if isinstance(error, OSError) and error.errno is not None:
        advice = OF_A_PATH.get(error.errno, f"{error.strerror}: {{}}")
        return advice.format(error.filename or "a file")
    text = str(error)
    if "Original Traceback" in text:  # a loader passes on the error of its worker
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())
