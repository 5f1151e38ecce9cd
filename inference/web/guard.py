"""Requests that the page refuses: other hosts and pages, foreign files, too large, too many."""

from contextlib import suppress
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEGABYTE = 10**6
UPLOAD = 50 * MEGABYTE  # largest upload
FORM = MEGABYTE  # largest other request; also what surrounds an upload
UPLOADS = 500 * MEGABYTE  # all uploads that are kept
AT_ONCE = 64  # requests that are answered at a time
LOOPBACK_NAMES = ["127.0.0.1", "localhost"]
API = "/gradio_api"
POSTED = tuple(f"{API}/{name}" for name in ("upload", "queue/join", "call/", "cancel", "reset"))
UPLOAD_PATHS = (f"{API}/upload", f"{API}/upload/")


def middleware(uploads: Path) -> list[Middleware]:
    """The checks of each request, first its Host; `uploads` is the folder of the uploads."""
    return [
        Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_NAMES, www_redirect=False),
        Middleware(Guard, uploads=uploads),
    ]


class Guard:
    """Refuses requests before Gradio reads them; `TrustedHostMiddleware` has checked their Host."""

    def __init__(self, app: ASGIApp, uploads: Path) -> None:
        self.app, self.uploads, self.running = app, uploads, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with a sentence."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        most = FORM + (UPLOAD if request.url.path in UPLOAD_PATHS else 0)
        if found := self.refusal(request, most):
            await PlainTextResponse(found[1], found[0])(scope, receive, send)
            return
        self.running += 1
        try:
            await self.app(scope, bounded(receive, most), send)
        finally:
            self.running -= 1

    def refusal(self, request: Request, most: int) -> tuple[int, str] | None:
        """Status and sentence for a request that is refused; None for any other."""
        path, headers = request.url.path, request.headers
        length = headers.get("content-length", "0")
        if headers.get("origin", f"http://{headers['host']}") != f"http://{headers['host']}":
            return 403, "another page may not ask this one; open it in a tab of its own"
        if "://" in path or f"{API}/proxy=" in path:
            return 403, "the page fetches nothing from elsewhere"
        if request.method not in ("GET", "HEAD", "OPTIONS") and not path.startswith(POSTED):
            return 404, "the page takes uploads and questions, nothing else"
        if not length.isdecimal() or int(length) > most:
            return 413, too_large(most)
        if self.running >= AT_ONCE:
            return 503, f"{AT_ONCE} requests are answered at the moment; try again in a while"
        if path in UPLOAD_PATHS and size_of(self.uploads) > UPLOADS:
            return 507, "the space for uploads is full; try again in an hour, or restart the page"
        return None


def too_large(most: int) -> str:
    """The answer to a request that is too large."""
    return f"the request is too large: {most // MEGABYTE} MB are allowed"


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder; those that vanish meanwhile do not count."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total


def bounded(receive: Receive, most: int) -> Receive:
    """A receiver of a request's body that refuses more than `most` bytes."""
    left = most

    async def go() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, too_large(most))
        return message

    return go


def upload_in(folder: Path, path: str) -> Path:
    """The file of an upload; a ValueError if it is outside the uploads, or no longer there.

    The message is the same for both, so nobody learns which files there are elsewhere.
    """
    with suppress(OSError, ValueError):  # as a name with a NUL
        found = Path(path).resolve()
        if found.is_relative_to(folder.resolve()) and found.is_file():
            return found
    raise ValueError("this is no picture that was uploaded a short while ago; choose it again")
