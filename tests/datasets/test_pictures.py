"""Which files are pictures, for all that reads some, and what is said of the others."""

import io
from types import SimpleNamespace

import pytest
from dassl.utils import tools as engine
from PIL import Image

from datasets import pictures
from datasets.pictures import KINDS, open_picture
from tests.datasets.config import build
from tests.datasets.trees import text
from tools import check_data, predict

PHONE = "it is a HEIC picture; run: pip install -r requirements-heic.txt"
HEADS = {
    "a.pdf": (b"%PDF-1.7\n", "it is a PDF; save the page that you mean as a PNG or JPEG"),
    "a.heic": (b"\0\0\0\x18ftypheic\0\0\0\0", PHONE),
    "b.HEIC": (b"\0\0\0\x18ftypmif1\0\0\0\0", PHONE),
    "a.jpg": (b"\0\0\0\x24ftyphevc\0\0\0\0", PHONE),  # whatever a file is called
    "a.avif": (
        b"\0\0\0\x18ftypavif\0\0\0\0",
        "it is an AVIF picture; run: pip install 'pillow>=11.3'",
    ),
}
UNKNOWN = "it is of no format that is read here, or it is damaged"


@pytest.fixture
def without_extras(monkeypatch):
    """Pillow without the formats that need something else."""
    read = tuple(kind for kind in KINDS if kind not in ("HEIF", "AVIF"))
    monkeypatch.setattr(pictures, "FORMATS", read)
    suffixes = tuple(suffix for kind in read for suffix in KINDS[kind])
    monkeypatch.setattr(pictures, "SUFFIXES", suffixes)
    monkeypatch.setattr(predict, "SUFFIXES", suffixes)


@pytest.mark.usefixtures("without_extras")
@pytest.mark.parametrize("name", HEADS)
def test_what_is_not_read_is_named_with_its_cure(tmp_path, name):
    content, said = HEADS[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read") as found:
        open_picture(path)
    assert str(found.value) == f"{path} cannot be read as a picture: {said}"
    with pytest.raises(ValueError, match="cannot be read") as found:
        open_picture(io.BytesIO(content))
    assert str(found.value) == f"the picture cannot be read as a picture: {said}"


def test_a_damaged_file_of_a_format_that_is_read_needs_no_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "FORMATS", tuple(KINDS))
    for name in ("a.heic", "a.avif"):
        (tmp_path / name).write_bytes(HEADS[name][0])
        with pytest.raises(ValueError, match="cannot be read") as found:
            open_picture(tmp_path / name)
        assert "run: pip" not in str(found.value)
    (tmp_path / "empty.heic").write_bytes(b"")
    with pytest.raises(ValueError, match=UNKNOWN):
        open_picture(tmp_path / "empty.heic")


def test_a_heic_file_is_opened_if_the_extra_is_there(tmp_path):
    pytest.importorskip("pillow_heif", exc_type=ImportError)
    Image.new("RGB", (24, 20)).save(tmp_path / "a.jpg", format="HEIF")
    assert open_picture(tmp_path / "a.jpg").size == (24, 20)


def test_the_engine_opens_the_same_formats():
    assert set(KINDS) == engine.FORMATS


@pytest.mark.usefixtures("without_extras")
def test_training_checking_and_predicting_take_the_same_files_and_count_the_others(
    tmp_path, caplog, capsys
):
    for name in ("cat", "dog"):
        for suffix in (".PNG", ".jp2", ".ppm", ".heic", ".pdf"):
            for number in range(4):
                text(tmp_path / name / f"{number}{suffix}", ["no picture"])
    dataset = build("Folder", tmp_path)
    items = [*dataset.train_x, *dataset.val, *dataset.test]
    taken = {item.impath for item in items}
    others = "16 files of another kind (8 .heic, 8 .pdf), as "
    cure = ".heic needs: pip install -r requirements-heic.txt"
    assert f"left out: {others}" in caplog.text
    assert cure in caplog.text
    found = predict.find_pictures([str(tmp_path)])
    assert {str(path) for path in found} == taken
    assert len(taken) == 24
    said = capsys.readouterr().err
    assert f"left out in {tmp_path}: {others}" in said
    assert cure in said
    subject = SimpleNamespace(dataset=dataset)
    [finding] = check_data.note_unused_and_turned(subject, SimpleNamespace(turned=()))
    assert finding.what.startswith(f"left out: {others}")
    assert cure in finding.what


@pytest.mark.usefixtures("without_extras")
def test_a_folder_of_heic_files_alone_says_what_is_missing(tmp_path):
    for number in range(3):
        text(tmp_path / "cat" / f"IMG_{number}.HEIC", ["no picture"])
    which = r"3 files of another kind \(3 \.heic\), as .*IMG_0\.HEIC; \.heic needs: pip install"
    with pytest.raises(ValueError, match=rf"No pictures in .* Left out: {which}"):
        build("Folder", tmp_path)
    with pytest.raises(ValueError, match=rf"holds no picture \(\.jpg, .*; left out: {which}"):
        predict.find_pictures([str(tmp_path)])
