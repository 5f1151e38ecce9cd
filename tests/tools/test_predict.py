"""tools/predict.py: rows, overlays, new classes, what cannot be read."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from datasets.pictures import ORIENTATION
from tests.toy import NAMES
from tools import predict
from tools.shared.run_arguments import read_class_list

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def images(toy_root):
    return toy_root / "toy" / "images"


@pytest.fixture
def call(trained, capsys):
    """Run the tool on a run of a trainer: exit code, stdout, stderr."""

    def go(*words, trainer="Spotlighter"):
        run = trained(trainer)
        capsys.readouterr()
        code = predict.main(["--model-dir", str(run), *map(str, words)])
        return code, *capsys.readouterr()

    return go


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_each_picture_is_a_row_of_csv(call, images):
    code, out, err = call("--images", images / "test_1_0.png", images / "test_0_3.png", "--topk", 2)
    assert (code, err) == (0, "")
    header = "path,class,probability,class_2,probability_2,kept_patches,spotlight"
    assert out.splitlines()[0] == header
    first, second = rows(out)
    assert [first["path"], second["path"]] == [
        str(images / name) for name in ("test_1_0.png", "test_0_3.png")
    ]
    assert first["class"] in NAMES[:3]
    assert 0 <= float(first["probability_2"]) <= float(first["probability"]) <= 1
    assert len({int(kept) for kept in first["kept_patches"].split()} & set(range(64))) == 5
    assert first["spotlight"] == ""


def test_json_lines_hold_the_same(call, images, tmp_path):
    flags = ("--images", images / "test_1_0.png", images / "test_2_0.png", "--topk", 3)
    _, table, _ = call(*flags)
    out = tmp_path / "new" / "found.jsonl"
    code, printed, _ = call(*flags, "--format", "jsonl", "--output", out)
    assert (code, printed) == (0, "")
    for line, row in zip(out.read_text().splitlines(), rows(table), strict=True):
        found = json.loads(line)
        assert [found["path"], found["class"]] == [row["path"], row["class"]]
        assert [entry["class"] for entry in found["top"]] == [
            row["class"],
            row["class_2"],
            row["class_3"],
        ]
        assert " ".join(map(str, found["kept_patches"])) == row["kept_patches"]
        assert found["probability"] == pytest.approx(float(row["probability"]))


def test_a_picture_below_the_threshold_is_unsure(call, images):
    """It is named in a column more; class and probabilities stay."""
    flags = ("--images", images / "test_0_0.png", images / "test_1_0.png", images / "test_2_0.png")
    _, plain, _ = call(*flags, "--topk", 2, trainer="CoOp")
    found = rows(plain)
    assert "unsure" not in found[0]
    tops = sorted(float(row["probability"]) for row in found)
    threshold = (tops[0] + tops[1]) / 2
    assert tops[0] < threshold < tops[1]
    _, marked, err = call(*flags, "--topk", 2, "--threshold", threshold, trainer="CoOp")
    assert marked.splitlines()[0] == f"{plain.splitlines()[0]},unsure"
    low = [float(row["probability"]) < threshold for row in found]
    assert [row.pop("unsure") for row in rows(marked)] == ["unsure" if x else "" for x in low]
    assert [{k: v for k, v in row.items() if k != "unsure"} for row in rows(marked)] == found
    said = f"predict: 1 of 3 pictures are unsure: their top probability is below {threshold:g}\n"
    assert err == said
    _, lines, _ = call(*flags, "--threshold", threshold, "--format", "jsonl", trainer="CoOp")
    assert [json.loads(line)["unsure"] for line in lines.splitlines()] == low
    _, none, err = call(*flags, "--threshold", 0, trainer="CoOp")
    assert {row["unsure"] for row in rows(none)} == {""}
    assert "0 of 3 pictures are unsure" in err


@pytest.mark.parametrize("word", ["-0.1", "1.01", "nan", "half"])
def test_a_threshold_that_is_no_probability_is_refused(call, capsys, word):
    with pytest.raises(SystemExit) as stop:
        call("--images", "a.png", f"--threshold={word}")
    assert stop.value.code == 2
    assert f"--threshold: must be a number from 0 to 1, got {word}" in capsys.readouterr().err


def test_folders_with_folders_and_stdin_are_read(call, images, tmp_path, monkeypatch):
    for name in ("b.png", "a/c.PNG", "a/notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes((images / "test_0_0.png").read_bytes())
    _, out, _ = call("--images", tmp_path / "in", trainer="CoOp")
    assert [Path(row["path"]).name for row in rows(out)] == ["c.PNG", "b.png"]
    assert {row["kept_patches"] for row in rows(out)} == {""}
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{tmp_path}/in/b.png\n\n"))
    _, out, _ = call("--images", "-", trainer="CoOp")
    assert [Path(row["path"]).name for row in rows(out)] == ["b.png"]


def test_batches_of_any_size_give_the_same(call, images):
    _, one, _ = call("--images", images, "--batch-size", 7)
    _, other, _ = call("--images", images, "--batch-size", 100)
    assert len(rows(one)) == 78
    for a, b in zip(rows(one), rows(other), strict=True):
        assert [a["path"], a["class"], a["kept_patches"]] == [
            b["path"],
            b["class"],
            b["kept_patches"],
        ]


def test_what_cannot_be_read_is_told_and_skipped(call, images, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    code, out, err = call("--images", tmp_path / "broken.png", images / "test_0_0.png", "/no.png")
    assert code == 0
    assert [Path(row["path"]).name for row in rows(out)] == ["test_0_0.png"]
    first, second, last = err.splitlines()
    assert first.startswith(f"predict: skipped: {tmp_path}/broken.png cannot be read as a picture")
    assert second == "predict: skipped: No picture at /no.png"
    assert last == "predict: 2 of 3 files were skipped"
    code, out, err = call("--images", "/no.png")
    assert code == 1
    assert rows(out) == []


def test_folders_are_searched_as_those_of_data_sets(call, images, tmp_path):
    content = (images / "test_0_0.png").read_bytes()
    for name in ("cat/a.PNG", "cat/._a.png", "__MACOSX/b.png", "cat/notes.raw", "out/c.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    (tmp_path / "in" / "out" / "config.yaml").touch()
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "cat").symlink_to(tmp_path / "in" / "cat")
    _, out, err = call("--images", tmp_path / "in", tmp_path / "links", trainer="CoOp")
    assert [Path(row["path"]).name for row in rows(out)] == ["a.PNG", "a.PNG"]
    assert "predict: left out in " in err
    assert "1 file of another kind (1 .raw), as " in err


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("where", ["file", "stdout"])
def test_a_name_that_is_no_utf8_stops_nothing(
    trained, images, tmp_path, capsys, form, where
):
    (tmp_path / "in").mkdir()
    content = (images / "test_0_0.png").read_bytes()
    for name in (b"a.png", b"\xb9\xb7.png", b"z.png"):
        (tmp_path / "in" / os.fsdecode(name)).write_bytes(content)
    words = ["--images", tmp_path / "in", "--format", form, "--model-dir", trained("Spotlighter")]
    words += ["--output", tmp_path / "out"] if where == "file" else []
    words += ["--spotlight", tmp_path / "drawn"] if where == "file" else []
    if where == "file":
        capsys.readouterr()
        assert predict.main(list(map(str, words))) == 0
        assert capsys.readouterr().err == ""
        text = (tmp_path / "out").read_text()
    else:  # of a terminal that takes UTF-8 alone
        command = [sys.executable, "tools/predict.py", *map(str, words)]
        environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
        options = {"capture_output": True, "text": True, "cwd": PROJECT, "env": environment}
        found = subprocess.run(command, **options, check=False)
        assert (found.returncode, found.stderr) == (0, "")
        text = found.stdout
    lines = text.splitlines()[form == "csv" :]
    assert [name in line for name, line in zip(("a.", r"\udcb9\udcb7.", "z."), lines, strict=True)]
    if form == "jsonl":
        assert Path(json.loads(lines[1])["path"]).is_file()


def test_pictures_are_turned_upright_and_counted(call, images, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    with Image.open(images / "test_0_0.png") as picture:
        picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    _, out, err = call("--images", tmp_path / "a.png", images / "test_0_0.png")
    assert err == "predict: pictures with an EXIF rotation flag: 1, turned upright\n"
    turned, plain = rows(out)
    assert {**turned, "path": ""} == {**plain, "path": ""}


def test_heic_is_read_if_pillow_heif_is_there(call, images, tmp_path):
    pytest.importorskip("pillow_heif", exc_type=ImportError)
    with Image.open(images / "test_0_0.png") as picture:
        picture.save(tmp_path / "IMG_1.HEIC", format="HEIF")
    (tmp_path / "IMG_2.heic").write_bytes(b"no picture")
    code, out, err = call("--images", tmp_path)
    assert code == 0
    assert [row["path"] for row in rows(out)] == [str(tmp_path / "IMG_1.HEIC")]
    assert "IMG_2.heic cannot be read as a picture" in err.replace("\n", " ")


def test_overlays_are_drawn_and_named(call, images, tmp_path):
    (tmp_path / "other").mkdir()
    Image.new("RGB", (90, 60), "red").save(tmp_path / "other" / "test_0_0.png")
    flags = ("--images", images / "test_0_0.png", tmp_path / "other" / "test_0_0.png")
    code, out, _ = call(*flags, "--spotlight", tmp_path / "spot")
    assert code == 0
    drawn = [Path(row["spotlight"]) for row in rows(out)]
    assert drawn == [tmp_path / "spot" / name for name in ("test_0_0.png", "test_0_0_2.png")]
    pixels = [np.asarray(Image.open(path).convert("RGB"), dtype=int) for path in drawn]
    assert pixels[0].shape[1] > 500
    yellow = (np.abs(pixels[1] - [255, 212, 0]).sum(-1) < 30).sum()
    assert yellow > 200  # frames of level 1 on a red picture


@pytest.mark.parametrize("name", ["$x_^2$ $\\frac", "a $5 bill, a $10 bill", "猫", "{"])
def test_overlays_of_odd_names(call, tmp_path, name):
    (folder := tmp_path / name).mkdir()
    for stem in (name, "b"):
        Image.new("RGB", (90, 60), "red").save(folder / f"{stem}.png")
    (tmp_path / "names.txt").write_text(f"{name}\nowl\n", encoding="utf-8")
    flags = ("--classes", tmp_path / "names.txt", "--spotlight", tmp_path / "spot")
    code, out, _ = call("--images", folder, *flags)
    assert code == 0
    assert sorted(path.stem for path in (tmp_path / "spot").iterdir()) == sorted([name, "b"])
    assert len(rows(out)) == 2


def test_a_run_that_selects_no_patches_draws_none(call, images, tmp_path):
    flags = ("--images", images, "--spotlight", tmp_path / "spot")
    code, _, err = call(*flags, trainer="CoOp")
    assert code == 2
    assert "a trainer that selects no patches; leave out --spotlight" in err


def test_other_classes_are_predicted(call, images, tmp_path):
    (tmp_path / "names.txt").write_text("piano\n\n  grand_piano \n")
    flags = ("--images", images / "test_0_0.png", "--classes", tmp_path / "names.txt", "--topk", 9)
    for trainer, new in (("Spotlighter", ["--new", "inherit"]), ("CoOp", [])):
        code, out, _ = call(*flags, *new, trainer=trainer)
        (row,) = rows(out)
        assert code == 0
        assert {row["class"], row["class_2"]} == {"piano", "grand_piano"}


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("n01 great white shark\nn02 tench\n", ["great white shark", "tench"]),
        ("a b\tgreat white shark\n\nc\ttench", ["great white shark", "tench"]),
        ("great white shark\n2 euro coin\n", ["great white shark", "2 euro coin"]),
    ],
)
def test_ids_before_class_names_are_no_part_of_them(tmp_path, content, names):
    (tmp_path / "names.txt").write_text(content)
    assert read_class_list(tmp_path / "names.txt") == names


def test_a_list_of_folders_without_a_mark_is_refused(tmp_path):
    (tmp_path / "classnames.txt").write_text("great white shark\n")
    with pytest.raises(ValueError, match="set them apart by a tab"):
        read_class_list(tmp_path / "classnames.txt")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\n \n", "holds no class name; give one a line"),
        (b"\xff\xfe\x00", "is no text in UTF-8"),
        (None, "there is no class list "),
    ],
)
def test_a_class_list_that_is_none_is_refused(call, images, tmp_path, content, sentence):
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    code, _, err = call("--images", images, "--classes", path)
    assert code == 2
    assert err.startswith("predict: error: ")
    assert sentence in err
    assert len(err.splitlines()) == 1


def test_mistakes_end_in_a_sentence(call, trained, tmp_path, capsys):
    assert "holds no picture (.jpg, " in call("--images", tmp_path)[2]
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "file").write_text("")
    code, _, err = call("--images", tmp_path / "a.png", "--output", tmp_path / "file" / "b.csv")
    assert code == 2
    assert str(tmp_path / "file") in err
    assert predict.main(["--model-dir", str(tmp_path / "gone"), "--images", "a.png"]) == 2
    assert f"there is no folder {tmp_path}/gone, so no run in it" in capsys.readouterr().err
    assert predict.main(["--model-dir", str(tmp_path), "--images", "a.png"]) == 2
    assert "is not the output folder of a run" in (said := capsys.readouterr().err)
    assert "exported" not in said
    (tmp_path / "model.json").write_text("{}")  # as tools/export.py leaves it
    assert predict.main(["--model-dir", str(tmp_path), "--images", "a.png"]) == 2
    said = capsys.readouterr().err
    assert f"by: python docs/examples/classify_onnx.py {tmp_path} PICTURE ...\n" in said
    with pytest.raises(SystemExit):
        call("--images", "a.png", "--topk", "0")


def test_a_terminal_sees_a_bar_and_the_rows_stay_clean(call, images, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        predict, "Console", lambda **_: Console(file=screen, force_terminal=True, width=90)
    )
    _, out, _ = call("--images", images, trainer="CoOp")
    assert len(rows(out)) == 78
    assert "78/78" in screen.getvalue()
    assert "left" in screen.getvalue()


def test_help_ends_with_an_example(capsys):
    with pytest.raises(SystemExit):
        predict.main(["--help"])
    shown = capsys.readouterr().out
    assert re.search(r"\nexamples:\n.*--images holiday/ --threshold 0.5\n+$", shown, re.S)


def test_whoever_reads_the_rows_may_have_enough(trained, images):
    tool = f"{sys.executable} tools/predict.py --batch-size 2 --images {images}"
    command = f"{tool} --model-dir {trained('CoOp')} | head -n 1"
    found = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=PROJECT)
    assert found.stdout.startswith("path,class,")
    assert found.stderr == ""
