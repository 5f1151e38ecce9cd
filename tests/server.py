"""A web server on this machine that can break connections."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from models.clip import fetch as download


class Server:
    """Files by name, and what goes wrong next.

    Attributes:
        files: content by name.
        faults: what happens to the next requests: a status to answer with, or a number of bytes
            after which the connection breaks, as ("cut", bytes).
        ranges: whether Range is understood.
        seen: (name, Range or "") of each request.
    """

    def __init__(self):
        self.files, self.faults, self.seen, self.ranges = {}, [], [], True

    def url(self, name=""):
        return f"http://127.0.0.1:{self.port}/{name}"


def handler(server):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            name, wanted = self.path.lstrip("/"), self.headers.get("Range", "")
            server.seen.append((name, wanted))
            fault = server.faults.pop(0) if server.faults else None
            content = server.files.get(name)
            if isinstance(fault, int) or content is None:
                self.send_error(fault or 404)
                return
            start = int(re.findall(r"\d+", wanted)[0]) if wanted and server.ranges else 0
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = start + fault[1] if fault else len(content)
            self.wfile.write(content[start:end])

    return Handler


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    state = Server()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    state.port = httpd.server_address[1]
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()
