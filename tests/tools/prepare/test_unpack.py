"""Archives that nobody has to trust."""

import io
import stat
import tarfile
import zipfile

import pytest

from tools.prepare.unpack import is_archive, unpack


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
    assert everything(tmp_path / "deep") == {"out/good": b"1"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["../../secret", "/etc/passwd", "nowhere", ".", "a/link"])
def test_links_out_of_a_tar_archive_are_refused(tmp_path, kind, target):
    (tmp_path / "secret").write_text("secret")
    archive = make_tar(tmp_path / "x.tgz", ("a/link", b"", kind, target))
    with pytest.raises(ValueError, match=r"'a/link' is a link to .*, which is no file of the arch"):
        unpack(archive, tmp_path / "deep" / "out")
    assert everything(tmp_path / "deep") == {}


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


def test_a_page_of_text_is_no_archive(tmp_path):
    (tmp_path / "x.zip").write_text("<html>Quota exceeded</html>")
    assert not is_archive(tmp_path / "x.zip")
    with pytest.raises(ValueError, match="is no archive, or an incomplete one"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
