"""Downloads: resumed where they broke off, checked, and never half there."""

import hashlib
import random
from pathlib import Path

import pytest

from models.clip.fetch import ATTEMPTS, fetch
from tools.data.sources import fetch_from_drive

CONTENT = random.Random(0).randbytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def served(server):
    server.files["a.zip"] = CONTENT
    return server


def test_a_file_is_fetched_and_checked(served, tmp_path):
    fetch(served.url("a.zip"), tmp_path / "new" / "a.zip", MD5)
    assert (tmp_path / "new" / "a.zip").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.zip"]


def test_a_wrong_file_of_the_name_is_replaced(served, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"x")
    fetch(served.url("a.zip"), tmp_path / "a.zip", MD5)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_broken_connection_is_resumed(served, tmp_path):
    served.faults = [("cut", 100_000), ("cut", 50_000)]
    fetch(served.url("a.zip"), tmp_path / "a.zip", MD5)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [wanted for _, wanted in served.seen] == ["", "bytes=100000-", "bytes=150000-"]


def test_a_connection_that_keeps_breaking_is_resumed_by_the_next_command(served, tmp_path):
    served.faults = [("cut", 1000)] * ATTEMPTS
    with pytest.raises(OSError, match=rf"tried {ATTEMPTS} times.*5,000 bytes are in .*a.zip.part"):
        fetch(served.url("a.zip"), tmp_path / "a.zip", MD5)
    assert not (tmp_path / "a.zip").exists()
    assert (tmp_path / "a.zip.part").read_bytes() == CONTENT[:5000]
    fetch(served.url("a.zip"), tmp_path / "a.zip", MD5)
    assert served.seen[-1] == ("a.zip", "bytes=5000-")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(served, tmp_path):
    served.ranges = False
    served.faults = [("cut", 100_000)]
    fetch(served.url("a.zip"), tmp_path / "a.zip", MD5)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_partial_file_that_is_complete_is_kept(served, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    fetch(served.url("a.zip"), tmp_path / "a.zip", MD5)
    assert served.seen == [("a.zip", "bytes=300000-")]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_partial_file_that_is_too_long_is_dropped(served, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT + b"x")
    fetch(served.url("a.zip"), tmp_path / "a.zip", MD5)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_partial_file_of_something_else_is_found_out(served, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    with pytest.raises(ValueError, match="MD5"):
        fetch(served.url("a.zip"), tmp_path / "a.zip", MD5)
    fetch(served.url("a.zip"), tmp_path / "a.zip", MD5)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(served, tmp_path):
    with pytest.raises(
        ValueError, match=rf"a.zip has the MD5 checksum {MD5}, expected 0123; fetch it anew"
    ):
        fetch(served.url("a.zip"), tmp_path / "a.zip", "0123")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_not_asked_for_again(served, tmp_path):
    with pytest.raises(OSError, match=r"b.zip cannot be fetched: the server answers 404"):
        fetch(served.url("b.zip"), tmp_path / "b.zip")
    assert len(served.seen) == 1


def test_a_busy_server_is_asked_again(served, tmp_path):
    served.faults = [503, 429]
    fetch(served.url("a.zip"), tmp_path / "a.zip", MD5)
    assert len(served.seen) == 3


def test_no_server_at_all(tmp_path, server):
    with pytest.raises(OSError, match=r"tried 5 times, at last .*refused"):
        fetch("http://127.0.0.1:1/a.zip", tmp_path / "a.zip")


def test_google_drive_is_asked_by_id(tmp_path, monkeypatch):
    import gdown

    def give(*, id, output, **options):
        Path(output).write_text(id)

    monkeypatch.setattr(gdown, "download", give)
    fetch_from_drive("1abc", tmp_path / "new" / "split.json")
    assert (tmp_path / "new" / "split.json").read_text() == "1abc"


def test_google_drives_refusal_says_what_to_do(tmp_path, monkeypatch):
    import gdown

    def refuse(**options):
        raise gdown.exceptions.FileURLRetrievalError("too many\nusers")

    monkeypatch.setattr(gdown, "download", refuse)
    with pytest.raises(
        OSError, match=r"split.json \(too many users\).*/1abc/view with a browser.*--mirror"
    ):
        fetch_from_drive("1abc", tmp_path / "split.json")
    assert list(tmp_path.iterdir()) == []
