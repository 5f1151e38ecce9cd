"""The picture of the kept patches."""

import pytest
import torch
from PIL import Image

from inference import overlays
from inference.open import open_without_data
from inference.overlays import nearest
from models.spotlighter.select import whole_map
from runs import figure_style
from runs.draw import fitting, to_pixels
from tools import visualise


@pytest.fixture
def spotlighter_run(run, tmp_path):
    run("Spotlighter", OPTIM__MAX_EPOCH=1)
    return tmp_path / "run"


def test_test_pictures_and_files_are_drawn(spotlighter_run, tmp_path, capsys):
    out = tmp_path / "a" / "spot.png"
    assert (
        visualise.main(["--model-dir", str(spotlighter_run), "--number", "2", "--output", str(out)])
        == 0
    )
    width, height = Image.open(out).size
    assert width > 400
    assert Image.open(out.with_name("spot_prototypes.png")).size[0] > 400
    assert "Drawn" in capsys.readouterr().out
    Image.new("RGB", (300, 200), "red").save(tmp_path / "own.png")
    assert (
        visualise.main(
            [
                "--model-dir",
                str(spotlighter_run),
                "--images",
                str(tmp_path / "own.png"),
                "--output",
                str(out),
            ]
        )
        == 0
    )
    assert Image.open(out).height < height


def test_kept_patches_are_drawn_where_they_are():
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots()
    pixels = torch.rand(64, 64, 3)
    overlays.draw_kept(axes, pixels, [0, 9, 63], 64, 2)
    corners = [frame.get_xy() for frame in axes.patches]
    assert corners == [(-0.5, -0.5), (7.5, 7.5), (55.5, 55.5)]  # index 9 = row 1, column 1
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3"]
    colours = [text.get_color() for text in axes.texts]
    assert colours == [*[overlays.LEVEL_COLOURS[0]] * 2, overlays.LEVEL_COLOURS[1]]
    plt.close(figure)


def test_ranks_do_not_cover_small_patches():
    """Of ViT-B/16: above the patch, and below those of the first row."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(overlays.INCHES, overlays.INCHES))
    overlays.draw_kept(axes, torch.rand(224, 224, 3), [0, 30, 195], 196, 3)
    figure.canvas.draw()
    for text, frame in zip(axes.texts, axes.patches, strict=True):
        one, other = text.get_window_extent(), frame.get_window_extent()
        overlap = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert overlap < 0.35 * one.height, text.get_text()
    plt.close(figure)


def test_a_probability_is_never_cut():
    assert overlays.in_words("cat", 0.876) == "cat 88 %"
    said = overlays.in_words("a name that is too long by far", 0.5)
    assert said == "a name that is too lo\u2026 50 %"
    assert fitting("said: big cat 50%", lambda text: len(text) <= 12) == "said: bi 50%"
    assert fitting("a big cat", lambda text: len(text) <= 3) == "a b"
    assert fitting("50%", lambda text: len(text) <= 9) == "50%"


@pytest.mark.parametrize("true", ["", "bee", "cat", "ash tree"])
def test_right_and_wrong_have_colours_where_the_truth_is_known(
    true, trained, tmp_path, monkeypatch
):
    titles = []
    monkeypatch.setattr(figure_style, "save", lambda figure, *_, **__: titles.extend(figure.axes))
    monkeypatch.setattr(overlays, "in_words", lambda *_: "said")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "own.png")
    trainer = open_without_data(trained("Spotlighter"))
    (name,) = visualise.draw(trainer, [(tmp_path / "own.png", true)], tmp_path / "x.png")
    expected = "black" if not true else "#060" if name == true else "#b00"
    assert titles[3].get_title(loc="left") == "said"
    assert titles[3]._left_title.get_color() == expected


def test_pixels_are_those_of_the_file():
    pixels = torch.rand(1, 3, 4, 4)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    normalised = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    found = to_pixels(normalised, mean, std)
    torch.testing.assert_close(found[0], pixels[0].permute(1, 2, 0))


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert visualise.main(["--model-dir", str(tmp_path)]) == 2
    assert "is not the output folder of a run" in capsys.readouterr().err


def test_a_run_that_selects_no_patches(run, tmp_path, capsys):
    run("CoOp", OPTIM__MAX_EPOCH=1)
    assert visualise.main(["--model-dir", str(tmp_path / "run")]) == 2
    said = "a run of CoOp; only runs of Spotlighter keep patches that can be drawn"
    assert said in capsys.readouterr().err


def test_dropped_patches_leave_holes_in_the_maps():
    score, positions = torch.tensor([[5.0, 7.0]]), torch.tensor([[3, 0]])
    found = whole_map(score, positions, 4)
    assert found[0, 3] == 5
    assert found[0, 0] == 7
    assert found[0, 1:3].isnan().all()
    assert torch.equal(whole_map(score, None, 2), score)


def test_the_nearest_patch_of_a_slot_is_found():
    tokens = torch.eye(4).view(2, 2, 4)  # two pictures, two patches each
    indices = torch.tensor([[5, 6], [7, 8]])
    slots = torch.tensor([[0.0, 0.0, 0.9, 0.1], [1.0, 0.0, 0.0, 0.0]])
    found = nearest(tokens, indices, slots)
    assert [(picture, place) for picture, place, _ in found] == [(1, 7), (0, 5)]
    assert found[0][2] == pytest.approx(0.9)
