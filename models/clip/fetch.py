"""Downloads that go on where they broke off, and are checked before they count."""

import errno
import hashlib
import http.client
import logging
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

logger = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of a file system
CHUNK = 2**20  # bytes
ATTEMPTS = 5
PAUSE = 2.0  # seconds between attempts
TIMEOUT = 60.0  # seconds of silence
WORTH_ANOTHER_TRY = (408, 429, 500, 502, 503, 504)


def fetch(url: str, target: Path, checksum: str = "", algorithm: str = "md5") -> None:
    """Download a file; what an earlier attempt left in `<target>.part` is not fetched again.

    Of several processes one fetches it, and the others wait. `checksum` is the published one, ""
    where there is none; `algorithm` is "md5" or "sha256". Raises OSError if the server refuses or
    the connection keeps breaking, and ValueError if the checksum is wrong; then no file is left.
    """
    with alone_with(target):
        if target.is_file() and checksum in ("", digest_of(target, algorithm)):
            return
        partial = part_of(target)
        _fetch_rest(url, partial)
        try:
            require_checksum(partial, checksum, url, algorithm)
        except ValueError:
            partial.unlink()  # going on from it would end in the same way
            raise
        partial.replace(target)


@contextmanager
def alone_with(target: Path) -> Iterator[None]:
    """Lock a file or folder, whose parent is made; warn where the file system has no locks."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        logger.warning(
            "%s gives no locks: see to it that no other process writes there", target.parent
        )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def part_of(target: Path) -> Path:
    """Where an incomplete download of a file is kept."""
    return target.with_name(f"{target.name}.part")


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """The checksum of a file, in hexadecimal digits."""
    total = hashlib.new(algorithm)
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            total.update(block)
    return total.hexdigest()


def require_checksum(path: Path, checksum: str, source: str, algorithm: str = "md5") -> None:
    """Raise ValueError if a file has another checksum than the published one ("" for none)."""
    if checksum and (found := digest_of(path, algorithm)) != checksum:
        raise ValueError(
            f"{source} has the {algorithm.upper()} checksum {found}, expected {checksum}; fetch it "
            "anew, or from another place."
        )


def _fetch_rest(url: str, partial: Path) -> None:
    """Try until a partial file is complete."""
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE)
        try:
            if _resume(url, partial):
                return
            problem = "it ended early"
        except urllib.error.HTTPError as error:
            problem = f"the server answers {error.code} {error.reason}"
            if error.code not in WORTH_ANOTHER_TRY:
                raise OSError(f"{url} cannot be fetched: {problem}.") from None
        except (OSError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
    size = partial.stat().st_size if partial.exists() else 0
    raise OSError(
        f"{url} cannot be fetched: tried {ATTEMPTS} times, at last {problem}. {size:,} bytes are "
        f"in {partial}; the next try goes on from there."
    )


def _resume(url: str, partial: Path) -> bool:
    """Fetch the rest of a partial file, or all of it; True if its length is as announced."""
    start = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "spotlighter", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing lies behind our last byte: it is complete, or another file.
        complete = error.headers.get("Content-Range", "").rpartition("/")[2] == str(start)
        if not complete:
            partial.unlink()
        return complete
    with response:
        start = start if response.status == 206 else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        # No bar where stderr is no terminal.
        bar = tqdm.wrapattr(response, "read", total, desc=partial.name, initial=start, disable=None)
        with partial.open("ab" if start else "wb") as file, bar as source:
            shutil.copyfileobj(source, file, CHUNK)
    return total is None or partial.stat().st_size == total
