"""Archives that nobody has to trust."""

import errno
import fcntl
import io
import stat
import tarfile
import zipfile

import pytest

from tools.data import unpack as module
from tools.data.unpack import is_archive, unpack


def add(archive, name, content=b"", kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, link
    archive.addfile(member, io.BytesIO(content))


def make_tar(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for member in members:
            add(archive, *member)
    return path


def make_zip(path, *members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, *link in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16 if link else 0o644 << 16
            archive.writestr(info, content)
    return path


def everything(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_archive_is_unpacked(tmp_path, mode):
    members = [("a", b"", tarfile.DIRTYPE), ("a/b.jpg", b"1"), ("./c/d/e.jpg", b"2")]
    archive = make_tar(tmp_path / "x.tar", *members, mode=mode)
    assert is_archive(archive)
    unpack(archive, tmp_path / "out")
    assert everything(tmp_path / "out") == {"a/b.jpg": b"1", "c/d/e.jpg": b"2"}


def test_a_zip_archive_is_unpacked(tmp_path):
    archive = make_zip(tmp_path / "x.zip", ("a/", ""), ("a/b.jpg", b"1"))
    assert is_archive(archive)
    unpack(archive, tmp_path / "out")
    assert everything(tmp_path / "out") == {"a/b.jpg": b"1"}


ESCAPES = ["../evil", "a/../../evil", "/evil", "a\\..\\..\\evil", "C:/evil", "\\evil"]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_nothing_is_written_outside(tmp_path, name, make):
    out = tmp_path / "deep" / "out"
    archive = make(tmp_path / "x", ("good", b"1"), (name, b"evil"))
    with pytest.raises(ValueError, match=r"x is refused: its member .*evil.* would be written out"):
        unpack(archive, out)
    assert list(tmp_path.glob("deep/*")) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["../../secret", "/etc/passwd", "nowhere", ".", "a/link"])
def test_links_out_of_a_tar_archive_are_refused(tmp_path, kind, target):
    (tmp_path / "secret").write_text("secret")
    archive = make_tar(tmp_path / "x.tgz", ("a/link", b"", kind, target))
    with pytest.raises(ValueError, match=r"'a/link' is a link to .*, which is no file of the arch"):
        unpack(archive, tmp_path / "deep" / "out")
    assert list(tmp_path.glob("deep/*")) == []


def test_links_in_a_circle_are_refused(tmp_path):
    members = [("a", b"", tarfile.SYMTYPE, "b"), ("b", b"", tarfile.SYMTYPE, "a")]
    with pytest.raises(ValueError, match="'a' is a link to 'b', which is no file"):
        unpack(make_tar(tmp_path / "x.tgz", *members), tmp_path / "out")


def test_nothing_is_written_through_a_link(tmp_path):
    """A folder's link first, then a member below its name: the classic way out."""
    members = [("door", b"", tarfile.SYMTYPE, str(tmp_path)), ("door/evil", b"evil")]
    with pytest.raises(ValueError, match="is refused"):
        unpack(make_tar(tmp_path / "x.tgz", *members), tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_links_within_become_files(tmp_path):
    members = [
        ("a/real.jpg", b"1"),
        ("b/soft.jpg", b"", tarfile.SYMTYPE, "../a/real.jpg"),
        ("b/hard.jpg", b"", tarfile.LNKTYPE, "a/real.jpg"),
    ]
    unpack(make_tar(tmp_path / "x.tgz", *members), tmp_path / "out")
    assert everything(tmp_path / "out") == dict.fromkeys(
        ("a/real.jpg", "b/soft.jpg", "b/hard.jpg"), b"1"
    )
    zipped = make_zip(tmp_path / "x.zip", ("a/real", b"1"), ("b/soft", "../a/real", "link"))
    unpack(zipped, tmp_path / "zip")
    assert everything(tmp_path / "zip") == {"a/real": b"1", "b/soft": b"1"}


@pytest.mark.parametrize("target", ["../../secret", "/etc/passwd", "nowhere"])
def test_links_out_of_a_zip_archive_are_refused(tmp_path, target):
    archive = make_zip(tmp_path / "x.zip", ("a/link", target, "link"))
    with pytest.raises(ValueError, match=r"'a/link' is a link to .*, which is no file of the arch"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_devices_are_refused(tmp_path, kind):
    with pytest.raises(ValueError, match="'tty' is neither file nor folder"):
        unpack(make_tar(tmp_path / "x.tgz", ("tty", b"", kind)), tmp_path / "out")


@pytest.mark.parametrize("form", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_an_incomplete_archive_is_named(tmp_path, form):
    members = [(f"{n}.jpg", bytes(range(256)) * 40) for n in range(9)]
    path = tmp_path / "x"
    archive = make_zip(path, *members) if form == "zip" else make_tar(path, *members, mode=form)
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"x is no archive, or an incomplete one; remove it and"):
        unpack(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_page_of_text_is_no_archive(tmp_path):
    (tmp_path / "x.zip").write_text("<html>Quota exceeded</html>")
    assert not is_archive(tmp_path / "x.zip")
    with pytest.raises(ValueError, match="is no archive, or an incomplete one"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


def refused(archive, words):
    """Nothing is left of what is refused, good members in front of the bad one included."""
    out = archive.parent / "deep" / "out"
    with pytest.raises(ValueError, match=words):
        unpack(archive, out)
    assert list(archive.parent.glob("deep/*")) == []


def test_a_chain_of_links_longer_than_a_path_leads_nowhere(tmp_path):
    """CVE-2025-4517: folders and links until a path is too long to be resolved, then out."""
    members, below = [("good", b"1")], ""
    for step in "abcdefghijklmnop":
        members += [(f"{below}{'d' * 247}", b"", tarfile.DIRTYPE)]
        members += [(f"{below}{step}", b"", tarfile.SYMTYPE, "d" * 247)]
        below += f"{step}/"
    members += [(f"{below}{'l' * 254}", b"", tarfile.SYMTYPE, "../" * 16)]
    members += [("escape", b"", tarfile.SYMTYPE, f"{below}{'l' * 254}/../../evil")]
    members += [("escape/evil", b"evil")]
    refused(make_tar(tmp_path / "x.tgz", *members), "is refused: ")
    assert not list(tmp_path.rglob("evil"))


LINK = tarfile.SYMTYPE
ODD = {
    "a link, then a file through it": [("a", b"", LINK, "good"), ("a/b", b"evil")],
    "a file, then one below it": [("a", b"1"), ("a/b", b"2")],
    "a link, then a file of its name": [("a", b"", LINK, "good"), ("a", b"evil")],
    "a file, then a link of its name": [("a", b"1"), ("./a", b"", tarfile.LNKTYPE, "good")],
    "links that never end": [(f"{n}", b"", LINK, f"{n + 1}") for n in range(50)],
    "a name too long": [("n" * 256, b"1")],
    "no name": [("./", b"1")],
}


@pytest.mark.parametrize("what", ODD)
def test_what_no_honest_archive_has_is_refused_as_a_whole(tmp_path, what):
    refused(make_tar(tmp_path / "x.tar", ("good", b"1"), *ODD[what], mode="w"), "x.tar is refused:")


def test_a_name_with_a_null_byte_is_refused(tmp_path):
    archive = make_zip(tmp_path / "x.zip", ("good", b"1"), ("evilXjpg", b"2"))
    archive.write_bytes(archive.read_bytes().replace(b"evilXjpg", b"evil\0jpg"))
    refused(archive, "has a name no file can have")


def test_a_sparse_member_is_refused(tmp_path):
    """A terabyte of nothing in a kilobyte."""
    archive = make_tar(tmp_path / "x.tar", ("hole", b"1" * 512, tarfile.GNUTYPE_SPARSE), mode="w")
    refused(archive, "'hole' is neither file nor folder")


def test_an_encrypted_member_is_refused(tmp_path):
    archive = make_zip(tmp_path / "x.zip", ("good", b"1"), ("secret", b"2"))
    content = bytearray(archive.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    refused(archive, "'secret' is encrypted; unpack it with its password by hand")


def test_an_unknown_method_is_refused(tmp_path):
    archive = make_zip(tmp_path / "x.zip", ("good", b"1"), ("odd", b"2"))
    content = bytearray(archive.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 10] = 98  # PPMd
    archive.write_bytes(content)
    refused(archive, "'odd' is packed by method 98, which is not known here; unpack it by hand")


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_more_than_can_be_meant_is_refused(tmp_path, make, monkeypatch):
    archive = make(tmp_path / "x", *((f"{n}", bytes(2000)) for n in range(20)))
    monkeypatch.setattr(module, "MOST_MEMBERS", 10)
    refused(archive, "it has more than 10 members")
    monkeypatch.setattr(module, "MOST_MEMBERS", 100)
    monkeypatch.setattr(module, "ALWAYS_ALLOWED", 1000)
    monkeypatch.setattr(module, "MOST_TIMES", 1)
    refused(make_tar(tmp_path / "x", ("a", bytes(100_000))), "unpacked it would have more than")


def test_many_links_to_one_large_file_count_as_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ALWAYS_ALLOWED", 300_000)
    monkeypatch.setattr(module, "MOST_TIMES", 1)
    links = [(f"{n}", b"", LINK, "large") for n in range(4)]
    refused(make_tar(tmp_path / "x", ("large", bytes(100_000)), *links), "more than 300,000 bytes")


def test_a_damaged_header_in_the_middle_does_not_end_the_archive(tmp_path):
    members = [(f"{n}.jpg", b"1" * 512) for n in range(9)]
    archive = make_tar(tmp_path / "x.tar", *members, mode="w")
    content = bytearray(archive.read_bytes())
    content[4 * 1024] ^= 255
    archive.write_bytes(content)
    refused(archive, "is no archive, or an incomplete one")


def test_a_tar_file_that_ends_with_a_zip_file_is_a_tar_file(tmp_path):
    inner = make_zip(tmp_path / "inner.zip", ("b", b"1"))
    unpack(make_tar(tmp_path / "x", ("inner.zip", inner.read_bytes()), mode="w"), tmp_path / "out")
    assert list(everything(tmp_path / "out")) == ["inner.zip"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".out.unfinished-1" / "content").mkdir(parents=True)
    unpack(make_tar(tmp_path / "x.tgz", ("a", b"1")), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.tgz"]


def test_a_folder_that_is_there_takes_up_what_is_new(tmp_path):
    for content in (b"1", b"2"):
        archive = make_tar(tmp_path / "x.tgz", (f"a/{content.decode()}", content), ("b", content))
        unpack(archive, tmp_path / "out")
    assert everything(tmp_path / "out") == {"a/1": b"1", "a/2": b"2", "b": b"2"}


def test_a_folder_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    unpack(make_tar(tmp_path / "a.tar.gz", ("one.txt", b"1")), tmp_path / "out")
    assert (tmp_path / "out" / "one.txt").read_bytes() == b"1"
    assert f"{tmp_path} gives no locks" in caplog.text
