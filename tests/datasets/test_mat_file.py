"""MATLAB files: read as they are, and whatever is wrong with one ends in a sentence."""

import os
import signal

import numpy as np
import pytest
from scipy.io import savemat

from datasets import mat_file
from datasets.mat_file import read_mat

FIELDS = {"class": int, "fname": str}


def write(path, **values):
    savemat(path, values)
    return path


@pytest.fixture
def annotations(tmp_path):
    rows = np.zeros((1, 3), dtype=[("class", object), ("fname", object)])
    for n in range(3):
        rows[0, n] = (float(n + 1), f"{n}.jpg")
    return write(tmp_path / "a.mat", annotations=rows, labels=np.array([[1, 2]], np.uint8))


def test_entries_are_plain_numbers_and_texts(annotations):
    expected = [{"class": n + 1, "fname": f"{n}.jpg"} for n in range(3)]
    assert read_mat(annotations, "annotations", FIELDS) == expected
    assert read_mat(annotations, "labels", int) == [1, 2]


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"x": [1.5]}, int, "a.mat, x, entry 1 is '1.5', expected a whole number"),
        ({"x": [np.nan]}, int, "is 'nan', expected a whole number"),
        ({"x": [1]}, str, "is '1', expected a text"),
        ({"x": [[1, 2], [3, 4]]}, FIELDS, "x, entry 1 lacks the field 'class'"),
        ({"x": {"class": 1.0, "fname": [1, 2]}}, FIELDS, r"entry 1, fname is '\[1, 2\]', expected"),
        ({"x": {"class": "a", "fname": "b"}}, FIELDS, "entry 1, class is 'a', expected a whole"),
        ({"y": [1]}, int, "lacks the variable 'x'"),
    ],
)
def test_odd_fields_are_one_sentence(tmp_path, values, kind, message):
    with pytest.raises(ValueError, match=message):
        read_mat(write(tmp_path / "a.mat", **values), "x", kind)


def test_a_reader_that_dies_takes_nobody_with_it(annotations, tmp_path, monkeypatch):
    script = tmp_path / "reader.py"
    script.write_text(f"import os\nos.kill(os.getpid(), {int(signal.SIGSEGV)})\n")
    monkeypatch.setattr(mat_file, "__file__", os.fspath(script))
    with pytest.raises(ValueError, match=r"a\.mat cannot be read .*damaged, its reader ended with"):
        read_mat(annotations, "labels", int)


def flipped(path, count, seed):
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for place in rng.integers(len(content), size=count):
        content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


@pytest.mark.parametrize(
    "seeds", [range(4), pytest.param(range(300), marks=pytest.mark.thorough)], ids=["few", "many"]
)
def test_flipped_bits_give_entries_or_a_sentence(annotations, seeds):
    whole, said = annotations.read_bytes(), 0
    for seed in seeds:
        annotations.write_bytes(whole)
        flipped(annotations, 1 + seed % 3, seed)
        try:
            rows = read_mat(annotations, "annotations", FIELDS)
        except ValueError as error:
            said += str(annotations) in str(error)
        else:
            assert all(type(row["class"]) is int and type(row["fname"]) is str for row in rows)
            said += 1
    assert said == len(seeds)
