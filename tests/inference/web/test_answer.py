"""What the page says, without a browser."""

import numpy as np
import pytest
from PIL import Image

from inference.predictor import SpotlighterPredictor
from inference.web.answer import Answerer, read_names


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def test_names_are_lines_or_commas_each_once():
    assert read_names(" red fox, owl\n\nowl,red  fox\n") == ["red fox", "owl", "red  fox"]
    assert read_names(" ,\n") == []


def test_the_answer_is_the_predictors(run, tmp_path, picture):
    run("Spotlighter", OPTIM__MAX_EPOCH=1)
    answerer = Answerer(str(tmp_path / "run"))
    answer = answerer.answer(picture, "\n".join(answerer.class_names))
    found = SpotlighterPredictor.from_run(tmp_path / "run").predict(picture)[0]
    assert answer.spotlighter == dict(found.top)
    assert next(iter(answer.spotlighter)) == found.class_name
    run("ZeroshotCLIP", "zero")
    plain = SpotlighterPredictor.from_run(tmp_path / "zero", answerer.class_names)
    assert answer.zero_shot == pytest.approx(dict(plain.predict(picture)[0].top), rel=1e-5)
    assert answer.looked_at.width > 3 * answer.looked_at.height


def test_an_answer_below_the_threshold_is_called_unsure(run, tmp_path, picture):
    run("CoOp", OPTIM__MAX_EPOCH=1)
    answerer = Answerer(str(tmp_path / "run"))
    plain = answerer.answer(picture, "")
    assert plain.unsure == ""
    tops = [next(iter(shares.values())) for shares in plain[:2]]
    answer = answerer.answer(picture, "", threshold=1.0)
    assert answer.unsure == (
        f"Spotlighter is unsure: {tops[0]:.0%} is below 100%. "
        f"Zero-shot CLIP is unsure: {tops[1]:.0%} is below 100%."
    )
    assert answer[:2] == plain[:2]
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1, got 2"):
        answerer.answer(picture, "", threshold=2)


def test_other_classes(run, tmp_path, picture):
    run("Spotlighter", OPTIM__MAX_EPOCH=1)
    answerer = Answerer(str(tmp_path / "run"))
    answer = answerer.answer(picture, "red fox, owl", "inherit")
    assert set(answer.spotlighter) == set(answer.zero_shot) == {"red fox", "owl"}
    assert sum(answer.spotlighter.values()) == pytest.approx(1)
    models = answerer.open.cache_info().misses
    answerer.answer(picture, "red fox, owl", "inherit")
    assert answerer.open.cache_info().misses == models, "a class list is built once"


def test_a_run_without_selection_has_nothing_to_draw(run, tmp_path, picture):
    run("CoOp", OPTIM__MAX_EPOCH=1)
    assert Answerer(str(tmp_path / "run")).answer(picture, "").looked_at is None


def test_mistakes_are_sentences(run, tmp_path, picture):
    run("CoOp", OPTIM__MAX_EPOCH=1)
    answerer = Answerer(str(tmp_path / "run"))
    with pytest.raises(ValueError, match="no picture yet"):
        answerer.answer(None, "")
    with pytest.raises(ValueError, match=r"one class \(owl\) leaves no choice"):
        answerer.answer(picture, "owl")
    path = tmp_path / "bad.png"
    path.write_text("no picture")
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        answerer.answer(str(path), "")


def test_zero_shot_clip_is_not_pruned(run, tmp_path):
    run("CoOp", OPTIM__MAX_EPOCH=1, MODEL__PRUNE__AT=(1,), MODEL__PRUNE__KEEP=(8,))
    assert SpotlighterPredictor.from_run(tmp_path / "run", zero_shot=True).model.pruner is None
    assert SpotlighterPredictor.from_run(tmp_path / "run").model.pruner is not None


def test_names_are_bounded():
    assert len(read_names(",".join(map(str, range(1000))))) == 1000
    with pytest.raises(ValueError, match="1001 classes are named; 1000 are allowed"):
        read_names(",".join(map(str, range(1001))))
    with pytest.raises(ValueError, match=r"201 characters \(aaa.*\.\.\.\); 200 are allowed"):
        read_names("owl," + 201 * "a")


def test_the_runs_own_names_may_hold_commas(run, tmp_path, picture):
    run("CoOp", OPTIM__MAX_EPOCH=1)
    answerer = Answerer(str(tmp_path / "run"))
    answerer.class_names = ["big, cat", "owl"]
    assert len(answerer.answer(picture, "big, cat\nowl").spotlighter) == 5, "the run's own model"
