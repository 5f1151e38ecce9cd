"""The pictures that a run got wrong, on a page."""

import base64
import io
import shutil

import pandas as pd
import pytest
from PIL import Image

from tools import report
from tools.results.wrong import GAP, SIDE, of_picture, read_wrong, wrong_pictures


@pytest.fixture
def folder(trained, tmp_path):
    """A run whose first two pictures are wrong, the second more surely."""
    folder = shutil.copytree(trained("Spotlighter"), tmp_path / "run")
    rows = pd.read_csv(folder / "predictions.csv")
    rows["predicted"], rows["probability"] = rows["label"], 0.5
    rows.loc[:1, "predicted"], rows.loc[:1, "probability"] = 2, [0.6, 0.9]
    rows.to_csv(folder / "predictions.csv", index=False)
    return folder


def opened(picture):
    return Image.open(io.BytesIO(base64.b64decode(picture.source.partition(",")[2])))


def test_wrong_rows_are_named_the_surest_first(folder):
    wrong = read_wrong(folder)
    assert wrong["path"].tolist() == ["toy/images/test_0_1.png", "toy/images/test_0_0.png"]
    assert set(wrong["true_name"]) == {"ash tree"}
    assert set(wrong["predicted_name"]) == {"cat"}


def test_wrong_pictures_stand_beside_what_was_kept(folder, toy_root):
    found, caption = wrong_pictures(folder, str(toy_root), 1)
    assert caption.startswith("2 of 15 test pictures are wrong; here are the 1 that")
    assert "right: the part that the model sees, and the patches that it kept" in caption
    assert found[0].text.startswith("true: ash tree; said: ")
    assert found[0].text.count("\N{NO-BREAK SPACE}%") == 3  # a line never begins with %
    assert found[0].text.endswith("(test_0_1.png)")
    assert opened(found[0]).size == (2 * SIDE + GAP, SIDE)
    assert len(wrong_pictures(folder, str(toy_root), 9)[0]) == 2


def test_without_patches_there_is_the_picture_alone(trained, toy_root):
    from inference.predictor import SpotlighterPredictor

    predictor = SpotlighterPredictor.from_run(trained("CoOp"))
    picture = of_picture(toy_root / "toy/images/test_2_0.png", "cat", predictor)
    assert opened(picture).size == (SIDE, SIDE)


def test_a_wide_picture_is_not_cut(tmp_path, trained):
    from inference.predictor import SpotlighterPredictor

    Image.new("RGB", (900, 300), "red").save(tmp_path / "wide.png")
    predictor = SpotlighterPredictor.from_run(trained("CoOp"))
    sheet = opened(of_picture(tmp_path / "wide.png", "cat", predictor))
    assert sheet.size == (2 * SIDE, SIDE)
    assert sheet.getpixel((1, SIDE // 2))[1] < 60  # red from edge to edge
    assert min(sheet.getpixel((SIDE, 1))) > 200  # white above


def test_the_page_shows_classes_and_wrong_pictures(folder, toy_root, tmp_path):
    words = [str(tmp_path), "--root", str(toy_root), "--overlays", "0", "--by-class"]
    assert report.main([*words, "--wrong", str(folder)]) == 0
    html = (tmp_path / "report.html").read_text()
    assert html.count("data:image/jpeg") == 2
    assert "Wrong pictures of Spotlighter" in html
    assert "of Spotlighter its prompts alone" in html  # the training curve
    assert "sample of seeds" not in html  # there is one
    table = html.partition("<h2>Accuracy of each class")[2].partition("<tbody>")[2]
    cells = table.partition("</tr>")[0]
    assert ">ash tree<" in cells  # the worst first: 3 of 5
    assert ">60.0<" in cells


def test_a_folder_without_results_is_named(folder, tmp_path, capsys):
    assert report.main([str(folder), "--wrong", str(tmp_path / "gone")]) == 2
    assert f"{tmp_path}/gone holds no results.json, so it is not" in capsys.readouterr().err


def test_nothing_wrong_is_said(folder, toy_root):
    rows = pd.read_csv(folder / "predictions.csv").assign(predicted=lambda rows: rows["label"])
    rows.to_csv(folder / "predictions.csv", index=False)
    assert wrong_pictures(folder, str(toy_root), 9) == ([], "0 of 15 test pictures are wrong.")


def test_predictions_of_earlier_versions_are_refused_in_a_sentence(folder):
    (folder / "predictions.csv").write_text("label,predicted\n0,1\n")
    with pytest.raises(ValueError, match="names no pictures; evaluate the run again"):
        read_wrong(folder)
