"""The page's server, asked over HTTP as no browser would: what it refuses, and what it says."""

import io
import json
import os
import re
import signal
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.inference.web.conftest import page_of

pytest.importorskip("gradio", reason="Gradio is not installed")
import httpx

from inference.web import guard

API = "/gradio_api"
PROBLEM = r'<div class="problem">(.*?)</div>'
GONE = "this is no picture that was uploaded a short while ago; choose it again"


def png(width=90, height=70):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


class Client:
    def __init__(self, address, run="the run"):
        self.run = str(run)
        self.http = httpx.Client(base_url=address.rstrip("/"), timeout=60)

    def upload(self, content, name="a.png"):
        found = self.http.post(f"{API}/upload", files={"files": (name, content)})
        assert found.status_code == 200, found.text
        return found.json()[0]

    def ask(self, picture, names="red fox, owl", new="as the run says", threshold=0, **run):
        """Event and data of an answer, or of the refusal of the picture."""
        session = uuid.uuid4().hex
        found = self.call("take", picture, session=session)
        if found[0] != "complete":
            return found
        question = (None, names, new, threshold, run.get("run", self.run))
        return self.call("predict", *question, session=session)

    def call(self, name, *question, session=None):
        """Event and data of what a handler of the page returns; a sentence of it is an error."""
        asked = self.post(name, question, session)
        if asked.status_code != 200:
            return str(asked.status_code), asked.text
        ((event, data),) = self.hear(name, asked)
        if event == "complete" and (wrong := re.search(PROBLEM, str(data[-1]))):
            return "error", {"error": wrong[1]}
        return event, data

    def post(self, name, question, session):
        """Put a question."""
        asked = {"data": question} | ({"session_hash": session} if session else {})
        return self.http.post(f"{API}/call/{name}", json=asked)

    def hear(self, name, asked):
        """Events and data of all questions of a session that are not answered yet, in order."""
        text = self.http.get(f"{API}/call/{name}/{asked.json()['event_id']}").text
        found = re.findall(r"event: (complete|error)\ndata: (.*)", text)
        return [(event, json.loads(data)) for event, data in found]

    def said(self, *question, **named):
        event, data = self.ask(*question, **named)
        assert event == "error", data
        return (data or {}).get("error")


@pytest.fixture
def client(served, toy_run):
    return Client(served[0], toy_run)


def file(path, **more):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}} | more


def test_an_upload_is_answered(client):
    event, data = client.ask(file(client.upload(png())))
    assert event == "complete", data
    assert set(re.findall(r'title="([^"]*)"', data[0])) == {"red fox", "owl"}
    assert data[0].count('src="data:image/jpeg;base64,') == 3
    event, taken = client.call("take", picture := file(client.upload(png())))
    assert event == "complete", taken
    assert taken[1]["path"] == picture["path"]
    assert client.http.get(f"{API}/file={picture['path']}").content == png()


def test_pictures_of_the_machine_are_not_read(client, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    inside = Path(client.upload(png()))
    link = inside.with_name("link.png")
    link.symlink_to(secret)
    places = (
        secret,
        tmp_path / "absent.png",
        tmp_path,
        link,
        inside.parent / ".." / ".." / ".." / secret.relative_to("/"),
        inside.with_name("absent.png"),
        inside.parent,
        "",
        "a\0b",
        "/etc/passwd",
        "/proc/self/environ",
    )
    for place in places:
        for form in (file(place), {"path": str(place)}):
            assert client.said(form) in (GONE, None), place
        assert client.http.get(f"{API}/file={place}".replace("\0", "%00")).status_code in (403, 404)


def test_whether_a_file_exists_is_not_told(client, tmp_path):
    there, absent = tmp_path / "there.png", tmp_path / "absent.png"
    there.write_bytes(png())
    for form in (file, lambda path: {"path": str(path)}):
        assert client.ask(form(there)) == client.ask(form(absent))
    said = [client.http.get(f"{API}/file={path}") for path in (there, absent)]
    assert said[0].status_code == said[1].status_code == 403
    assert said[0].text.replace("there", "") == said[1].text.replace("absent", "")


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/a.png", "https://example.org/a.png"])
def test_nothing_is_fetched(client, place):
    assert client.said({"path": place}) in (GONE, None)
    assert client.said(file(place)) in (GONE, None)
    assert client.said(file("", url=place)) in (GONE, None)
    for way in (f"{API}/file={place}", f"{API}/proxy={place}", f"{API}/file/{place}"):
        assert client.http.get(way).status_code == 403, way


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example"])
def test_another_host_is_refused(client, host):
    for way in ("/", "/config", f"{API}/info"):
        assert client.http.get(way, headers={"Host": host}).status_code == 400
    sent = client.http.post(f"{API}/upload", files={"files": png()}, headers={"Host": host})
    assert sent.status_code == 400


def test_loopback_is_answered(client, served):
    for host in (f"127.0.0.1:{served[1]}", f"localhost:{served[1]}", "localhost:8000"):
        own = {"Host": host, "Origin": f"http://{host}"}
        assert client.http.get("/config", headers=own).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", ""])
def test_another_pages_request_is_refused(client, origin):
    found = client.http.post(
        f"{API}/call/predict", json={"data": []}, headers={"Origin": origin}
    )
    assert found.status_code == 403
    assert "another page may not ask this one" in found.text


def test_too_large_is_refused(client):
    found = client.http.post(f"{API}/upload", files={"files": bytes(52 * 10**6)})
    assert (found.status_code, found.text) == (
        413,
        "the request is too large: 51 MB are allowed",
    )
    for number in (10**6, 2 * 10**6):
        words = " ".join("owl" for _ in range(number))
        assert client.ask(file(client.upload(png())), words)[0] == "413"


def test_a_body_of_unsaid_length_is_bounded(client):
    pieces = (b"[" * 65536 for _ in range(64))
    kind = {"Content-Type": "application/json"}
    found = client.http.post(f"{API}/call/predict", content=pieces, headers=kind)
    assert found.status_code in (400, 413)
    assert client.ask(file(client.upload(png())))[0] == "complete"


def test_class_lists_are_bounded(client):
    picture = file(client.upload(png()))
    many = "\n".join(f"class {i}" for i in range(1001))
    assert client.said(picture, many) == "1001 classes are named; 1000 are allowed"
    long = client.said(picture, "owl\n" + "fox " * 60)
    assert long.startswith("a class name has 239 characters (fox fox")
    assert long.endswith("200 are allowed")
    assert "leaves no choice" in client.said(picture, "owl")
    assert "(&lt;img src=x&gt;)" in client.said(picture, "<img src=x>"), "it is shown as HTML"


@pytest.mark.parametrize("side", [8100, 10_000, 20_000])
def test_a_picture_of_many_pixels_is_not_decoded(client, side):
    target = io.BytesIO()
    Image.new("1", (side, side)).save(target, "PNG")
    said = client.said(file(client.upload(target.getvalue(), "large.png")))
    assert said.startswith("large.png cannot be read as a picture: ")
    assert "pixels" in said


def test_no_other_question_is_taken(client):
    for way in ("run/predict", "component_server", "process_recording", "stream/x", "vibe-edit"):
        assert client.http.post(f"{API}/{way}", json={"data": []}).status_code == 404, way
    picture = file(client.upload(png()))
    assert "not in the list of choices" in client.said(picture, new="anything")
    for run in ("/etc", "../..", ""):
        assert "not in the list of choices" in client.said(picture, run=run)
        event, data = client.call("choose", run, "")
        assert (event, "not in the list of choices" in data["error"]) == ("error", True)


def test_the_threshold_is_a_probability(client):
    picture = file(client.upload(png()))
    event, data = client.ask(picture, threshold=1)
    assert event == "complete", data
    assert "Spotlighter on CoOp is unsure: " in data[0]
    assert "unsure" not in client.ask(picture)[1][0]
    for wrong in (-1, 1.5, "x", None, []):
        assert client.ask(picture, threshold=wrong)[0] != "complete", wrong
    assert client.ask(picture)[0] == "complete"


def test_many_at_once_are_answered_or_told_so(client):
    picture = file(client.upload(png()))
    with ThreadPoolExecutor(40) as pool:
        found = list(pool.map(lambda _: client.ask(picture), range(40)))
    kinds = {event for event, _ in found}
    assert "complete" in kinds
    assert kinds <= {"complete", "503"}
    assert client.ask(picture)[0] == "complete"


@pytest.mark.parametrize(
    "how", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.thorough)]
)
def test_uploads_go_when_the_page_ends(toy_run, tmp_path, how):
    with page_of(toy_run, TMPDIR=str(tmp_path)) as (process, found):
        Client(found[0]).upload(png())
        [folder] = tmp_path.glob("spotlighter_page_*")
        assert folder.stat().st_mode & 0o077 == 0, "for its owner alone"
        assert list(folder.rglob("a.png"))
        process.send_signal(how)
        assert process.wait(60) == (143 if how == signal.SIGTERM else 0)
    assert not list(tmp_path.glob("spotlighter_page_*"))


class Names:
    """Says the name of a picture's file in place of a class, when `go_on` is set."""

    class_names, runs, root = ("a", "b"), {"the run": Path()}, ""

    def __init__(self):
        self.asked, self.go_on = [], threading.Event()
        self.go_on.set()

    def answer(self, picture, names, new, threshold, run):
        from inference.web.answer import Answer, Column

        self.asked.append(Path(picture).name)
        self.go_on.wait(60)
        column = Column("CoOp", "", [(Path(picture).name, 1.0)])
        return Answer((column, column), "", "", None)


@contextmanager
def served_here(answerer):
    """A page in this process, and its uploads."""
    from inference.web import page

    with page.upload_folder() as folder:
        blocks = page.build_page(answerer, folder)
        yield Client(page.launch(blocks, folder, "127.0.0.1", 0), "the run"), folder
        blocks.close()


@pytest.fixture
def small(monkeypatch):
    """A page that removes uploads after a second."""
    from inference.web import page

    monkeypatch.setattr(page, "EVERY", 1)
    monkeypatch.setattr(page, "KEPT", 1)
    with served_here(Names()) as found:
        yield found


def test_an_answer_is_of_the_picture_that_is_shown():
    answerer = Names()
    with served_here(answerer) as (client, _):
        old, new = (file(client.upload(png(), name)) for name in ("old.png", "new.png"))
        client.call("take", old, session="mine")
        answerer.go_on.clear()
        question = (old, "", "as the run says", 0, client.run)  # a page that shows the old one
        asked = [("predict", question), ("take", [new]), ("predict", question)]
        sent = [client.post(name, data, "mine") for name, data in asked]  # before any is answered
        time.sleep(1)  # in which nothing may overtake the first answer
        answerer.go_on.set()
        found = [data for _, data in client.hear("predict", sent[0])]
    assert "old.png" in found[0][0]
    assert found[1][1]["path"] == new["path"]
    assert found[1][-1] == "", "the old answer goes with its picture"
    assert "new.png" in found[2][0]
    assert answerer.asked == ["old.png", "new.png"]


def test_uploads_go_after_their_last_use(small):
    client, _ = small
    path = client.upload(png())
    assert client.ask(file(path))[0] == "complete"
    end = time.monotonic() + 60
    while Path(path).exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(path).exists()
    assert client.said(file(path)) == GONE


def test_what_a_killed_page_has_left_goes_with_the_next(tmp_path, monkeypatch):
    from inference.web import page

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, used, new = (tmp_path / f"{page.PREFIX}{name}" for name in ("left", "used", "new"))
    for folder in (left, used, new):
        (folder / "upload").mkdir(parents=True)
    for folder in (left, used):
        os.utime(folder, (0, 0))
    with page.locked(used), page.upload_folder() as own:
        assert set(tmp_path.iterdir()) == {used, new, own}


def test_uploads_are_bounded_together(small, monkeypatch):
    client, folder = small
    monkeypatch.setattr(guard, "UPLOADS", 1000)
    (folder / "large").write_bytes(bytes(1001))
    found = client.http.post(f"{API}/upload", files={"files": png()})
    assert found.status_code == 507
    assert found.text.startswith("the space for uploads is full")


def test_requests_at_once_are_bounded(small, monkeypatch):
    client, _ = small
    monkeypatch.setattr(guard, "AT_ONCE", 1)
    with client.http.stream("GET", f"{API}/heartbeat/abc") as first:
        assert first.status_code == 200
        found = httpx.get(client.http.base_url.join("/config"))
        assert found.status_code == 503
        assert "try again in a while" in found.text
