"""Odd and broken pictures: read rightly, or refused by name."""

import contextlib
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from dassl.data.transforms import build_transform
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from datasets import pictures
from datasets.pictures import ORIENTATION, TURNED, open_picture

PROJECT = Path(__file__).parents[2]
FUZZ = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def encoded(picture, kind, **options):
    target = io.BytesIO()
    picture.save(target, kind, **options)
    return target.getvalue()


def ramp(dtype, top):
    return np.linspace(0, top, 256).reshape(16, 16).astype(dtype)


@pytest.fixture
def read(tmp_path):
    """Write bytes, read them as a picture; pixels (H, W, 3)."""

    def go(content, name="picture.png"):
        (tmp_path / name).write_bytes(content)
        return np.asarray(open_picture(tmp_path / name))

    return go


RGB = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
PALETTE = Image.fromarray(RGB).quantize(256)
TRANSPARENT = Image.fromarray(np.dstack([RGB, ramp(np.uint8, 255)]), "RGBA")
GOOD = {
    "1 x 1 pixel": (encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"), [[[1, 2, 3]]]),
    "16 bits a pixel, grey": (
        encoded(Image.fromarray(ramp(np.uint16, 65535)), "PNG"),
        np.repeat(ramp(np.uint16, 65535)[..., None] // 257, 3, -1),
    ),
    "16 bits in 32, TIFF": (
        encoded(Image.fromarray(ramp(np.int32, 65535)), "TIFF"),
        np.repeat(ramp(np.int32, 65535)[..., None] // 257, 3, -1),
    ),
    "8 bits in 32, TIFF": (
        encoded(Image.fromarray(ramp(np.int32, 255)), "TIFF"),
        np.repeat(ramp(np.int32, 255)[..., None], 3, -1),
    ),
    "a palette": (encoded(PALETTE, "PNG"), np.asarray(PALETTE.convert("RGB"))),
    "transparency": (encoded(TRANSPARENT, "PNG"), RGB),
    "1 bit": (
        encoded(Image.fromarray(RGB[..., 0] > 127), "PNG"),
        np.repeat((RGB[..., :1] > 127) * 255, 3, -1),
    ),
    "an animation": (
        encoded(
            PALETTE.convert("RGB"), "WEBP", lossless=True, save_all=True,
            append_images=[Image.new("RGB", (16, 16))],
        ),
        np.asarray(PALETTE.convert("RGB")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", GOOD)
def test_odd_pictures_are_read_rightly(read, witness, kind):
    content, expected = GOOD[kind]
    assert np.array_equal(read(content), expected)
    witness("input", f"a picture: {kind}", "read rightly")


def test_cmyk_is_converted(read, witness):
    """A JPEG of full cyan, which is (0, 255, 255) but for compression."""
    pixels = read(encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG"))
    assert np.abs(pixels.astype(int) - [0, 255, 255]).max() < 10
    witness("input", "a picture: CMYK", "read rightly")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_picture_is_turned_where_that_is_wanted(tmp_path, orientation, kind, witness):
    path = tmp_path / "picture"
    options = {"lossless": True} if kind == "WEBP" else {}
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path.write_bytes(encoded(Image.fromarray(RGB[:9]), kind, exif=exif.tobytes(), **options))
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    plain = expected if kind == "TIFF" else RGB[:9]  # which Pillow itself turns
    assert np.array_equal(np.asarray(open_picture(path)), plain)
    assert np.array_equal(np.asarray(open_picture(path, upright=True)), expected)
    marks = [open_picture(path, upright=how).info[TURNED] for how in (False, True)]
    usual = ["upright" if kind == "TIFF" else "stored", "upright"]
    assert marks == (["", ""] if orientation == 1 else usual)
    if orientation == 6 and kind == "PNG":
        witness("input", "a picture: EXIF calls for a turn", "turned or not as asked, and counted")


def test_damaged_exif_data_do_no_harm(read):
    content = encoded(Image.fromarray(RGB), "PNG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert np.array_equal(read(content), RGB)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


def test_postscript_starts_no_program(read, monkeypatch, witness):
    def started(*args, **kwargs):
        pytest.fail("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    with pytest.raises(ValueError, match=r"cannot be read as a picture: it is of no format that"):
        read(POSTSCRIPT)
    witness("input", "a picture: PostScript called x.png", "refused, no program is started")


def test_a_webp_may_have_half_the_pixels(read, monkeypatch):
    monkeypatch.setattr(pictures, "FEWER", {"WEBP": 128})
    with pytest.raises(ValueError, match="it has 16 x 16 pixels, at most 128 are read"):
        read(encoded(Image.fromarray(RGB), "WEBP"))
    assert read(encoded(Image.fromarray(RGB), "PNG")).shape == (16, 16, 3)


def test_a_bomb_takes_no_memory(tmp_path, witness):
    """A PNG of some kilobytes with 13,000 x 13,000 pixels is refused before it is decoded."""
    path = tmp_path / "bomb.png"
    Image.new("1", (13_000, 13_000)).save(path)
    assert path.stat().st_size < 100_000
    code = (
        "import resource, sys\nfrom datasets.pictures import open_picture\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nbefore = peak()\n"
        "try:\n    open_picture(sys.argv[1])\nexcept ValueError as error:\n    print(error)\n"
        "print(peak() - before)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(path)]
    said, grown = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=PROJECT
    ).stdout.splitlines()
    assert "it has 13000 x 13000 pixels, at most 64,000,000 are read; make it smaller" in said
    assert int(grown) < 20_000  # kilobytes
    witness("input", "a picture: 20 kB of file, 169 million pixels", "refused before it is decoded")


def bomb():
    """A PNG of a few bytes that says it has 10^10 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = b""
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        body = name + data
        chunks += struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunks


BAD = {
    "no bytes": b"",
    "cut in half": encoded(Image.fromarray(RGB), "PNG")[:400],
    "a JPEG cut in half": encoded(Image.fromarray(RGB), "JPEG")[:400],
    "a text": b"no picture",
    "10^10 pixels announced": bomb(),
    "numbers with a point": encoded(Image.fromarray(ramp(np.float32, 1)), "TIFF"),
}


@pytest.mark.parametrize("kind", BAD)
def test_broken_pictures_are_refused_by_name(read, witness, counted, kind):
    refused = pytest.raises(ValueError, match=r"picture\.png cannot be read as a picture: ")
    with counted("pictures that are broken, or none, refused by name"), refused as met:
        read(BAD[kind])
    said = str(met.value).split(" at 0x")[0]
    witness("input", f"a picture: {kind}", said)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_ends_a_run_in_one_sentence(fails, toy_root, tmp_path, workers):
    """From a worker, too, whose traceback is cut off."""
    path = toy_root / "toy" / "images" / "test_0_1.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    try:
        found = fails("ZeroshotCLIP", DATALOADER__NUM_WORKERS=workers)
    finally:
        path.write_bytes(whole)
    assert found.startswith("train.py: error: ")
    assert "test_0_1.png cannot be read as a picture" in found
    assert "line" not in found
    assert not (tmp_path / "run" / "results.json").exists()


def test_an_extremely_long_picture_takes_no_gigabytes(arguments, witness, monkeypatch):
    import train
    from runs.config import build_config

    cfg = build_config(train.parse_args(arguments("CoOp")))
    transform = build_transform(cfg, is_train=False)
    sizes, crop = [], Image.Image.resize

    def resize(self, size, *args, **kwargs):
        sizes.append(size)
        return crop(self, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", resize)
    for shape in ((20000, 2), (2, 20000)):
        assert transform(Image.new("RGB", shape)).shape == (3, 64, 64)
    assert max(max(size) for size in sizes) <= 33 * 64
    witness("input", "a picture: 20000 x 2 pixels", "its middle is read, without gigabytes")


def test_the_middle_is_what_it_was_before(arguments):
    """Of a long picture, and no other is touched."""
    import torchvision.transforms as T
    from dassl.data.transforms import MiddleOfLongEdge

    rng = np.random.default_rng(0)
    long = Image.fromarray(rng.integers(0, 255, (4, 600, 3)).astype(np.uint8))
    plain = T.Compose([T.Resize(32), T.CenterCrop(32)])
    cut = T.Compose([MiddleOfLongEdge(), T.Resize(32), T.CenterCrop(32)])
    assert MiddleOfLongEdge()(long).size == (128, 4)
    assert np.array_equal(np.asarray(plain(long)), np.asarray(cut(long)))
    usual = Image.fromarray(RGB)
    assert MiddleOfLongEdge()(usual) is usual


@FUZZ
@given(
    st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
    st.floats(0.1, 1),
)
def test_spoilt_bytes_give_a_picture_or_a_sentence(read, kind, changes, kept):
    content = bytearray(encoded(Image.fromarray(RGB), kind))
    for place, value in changes:
        content[int(place * len(content))] = value
    with contextlib.suppress(ValueError):  # as the next test sees, with a sentence
        pixels = read(bytes(content[: int(kept * len(content))]))
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[-1] == 3


@FUZZ
@given(st.binary(max_size=300))
def test_any_bytes_give_a_picture_or_a_sentence(read, content):
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        read(content)
