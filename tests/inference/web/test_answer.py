"""What the page says, without a browser."""

import numpy as np
import pytest
from PIL import Image

from inference.predictor import Prediction, SpotlighterPredictor
from inference.web.answer import Answerer, compare, read_names
from inference.web.markup import markup, problem


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def test_names_are_lines_or_commas_each_once():
    assert read_names(" red fox, owl\n\nowl,red  fox\n") == ["red fox", "owl", "red  fox"]
    assert read_names(" ,\n") == []


def test_the_answer_is_the_predictors(run, tmp_path, picture):
    run("Spotlighter", OPTIM__MAX_EPOCH=1)
    answerer = Answerer({"run": tmp_path / "run"})
    answer = answerer.answer(picture, "\n".join(answerer.class_names))
    tuned, plain = answer.columns
    found = SpotlighterPredictor.from_run(tmp_path / "run").predict(picture)[0]
    assert tuned.top == found.top
    assert tuned[:2] == ("Spotlighter on CoOp", "trained on Toy"), "the trainer has its name"
    run("ZeroshotCLIP", "zero")
    zero = SpotlighterPredictor.from_run(tmp_path / "zero", answerer.class_names)
    assert dict(plain.top) == pytest.approx(dict(zero.predict(picture)[0].top), rel=1e-5)
    drawn = answer.drawn
    assert drawn.kept.size == drawn.sample_wise.size == drawn.semantic_wise.size
    # The shape of the picture; a model of 32 pixels, which resizes 90 x 70 to 41 x 32.
    assert drawn.kept.width / drawn.kept.height == pytest.approx(90 / 70, abs=1 / 32)


def test_an_answer_below_the_threshold_is_called_unsure(run, tmp_path, picture):
    run("CoOp", OPTIM__MAX_EPOCH=1)
    answerer = Answerer({"run": tmp_path / "run"})
    plain = answerer.answer(picture, "")
    assert plain.unsure == ""
    tops = [column.top[0][1] for column in plain.columns]
    answer = answerer.answer(picture, "", threshold=1.0)
    assert answer.unsure == (
        f"CoOp is unsure: {100 * tops[0]:.1f} % is below 100.0 %. "
        f"Zero-shot CLIP is unsure: {100 * tops[1]:.1f} % is below 100.0 %."
    )
    assert answer.columns == plain.columns
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1, got 2"):
        answerer.answer(picture, "", threshold=2)


def test_other_classes(run, tmp_path, picture):
    run("Spotlighter", OPTIM__MAX_EPOCH=1)
    answerer = Answerer({"run": tmp_path / "run"})
    answer = answerer.answer(picture, "red fox, owl", "inherit")
    for column in answer.columns:
        assert {name for name, _ in column.top} == {"red fox", "owl"}
        assert sum(share for _, share in column.top) == pytest.approx(1)
    models = answerer.open.cache_info().misses
    answerer.answer(picture, "red fox, owl", "inherit")
    assert answerer.open.cache_info().misses == models, "a class list is built once"


def test_a_run_without_selection_has_nothing_to_draw(run, tmp_path, picture):
    run("CoOp", OPTIM__MAX_EPOCH=1)
    assert Answerer({"run": tmp_path / "run"}).answer(picture, "").drawn is None


def test_mistakes_are_sentences(run, tmp_path, picture):
    run("CoOp", OPTIM__MAX_EPOCH=1)
    answerer = Answerer({"run": tmp_path / "run"})
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
    answerer = Answerer({"run": tmp_path / "run"})
    answerer.own["run"] = ("big, cat", "owl")
    columns = answerer.answer(picture, "big, cat\nowl").columns
    assert len(columns[0].top) == 5, "the run's own model"


NEW = "red fox, owl"  # classes that no run was trained on


def test_zero_shot_clip_beside_itself_says_so(run, tmp_path, picture):
    run("ZeroshotCLIP", "zero")
    answer = Answerer({"zero": tmp_path / "zero"}).answer(picture, "")
    why = "the run is zero-shot CLIP itself, without training"
    assert answer.comparison == f"Both columns agree to within a point: {why}."
    assert answer.columns[0].subtitle == "without training"


def same(answerer, names, new=""):
    """What is said where both models give the same: zero-shot CLIP's answer stands for both."""
    tuned = answerer.open("run", names, new=new)
    one = Prediction("a", 0.6, [(name, 0.6 - 0.1 * i) for i, name in enumerate(tuned.class_names)])
    return compare(tuned, one, one, answerer.names("run"))


def test_two_equal_answers_are_explained(run, tmp_path):
    run("Spotlighter", OPTIM__MAX_EPOCH=1)
    answerer = Answerer({"run": tmp_path / "run"})
    new = ("red fox", "owl")
    off = same(answerer, new, "off")
    assert "none of these classes was in training, and for such the bank has weight 0" in off
    head = answerer.open("run", new, new="inherit").model.head
    head.new_parts[0, 1:] = 1.0
    assert "none of these classes was in training; what the run does" in (
        same(answerer, new, "inherit")
    )
    head = answerer.open("run", None, new="").model.head
    head.level.data.fill_(1.0)
    assert "what was learned in training changes little" in same(answerer, None)
    head.level.data.zero_()
    assert "in this run the bank has weight 0, so the learned prompts alone" in same(answerer, None)
    object.__setattr__(head.options, "gate", False)
    assert "the head is switched off (TRAINER.SPOTLIGHTER.GATE False)" in same(answerer, None)


def test_answers_that_differ_are_compared(run, tmp_path):
    run("CoOp", OPTIM__MAX_EPOCH=1)
    answerer = Answerer({"run": tmp_path / "run"})
    tuned, own = answerer.open("run", ("a", "b")), answerer.names("run")
    sure, unsure, other = (
        Prediction(top[0][0], top[0][1], top)
        for top in ([("a", 0.9), ("b", 0.1)], [("a", 0.6), ("b", 0.4)], [("b", 0.7), ("a", 0.3)])
    )
    assert compare(tuned, sure, other, own) == "They name different classes."
    which = "Both name the same class; {} is surer of it: 90.0 % against 60.0 %."
    assert compare(tuned, sure, unsure, own) == which.format("CoOp")
    assert compare(tuned, unsure, sure, own) == which.format("zero-shot CLIP")
    nearly = Prediction("a", 0.905, [("a", 0.905), ("b", 0.095)])
    assert "agree to within a point: none of these classes" in compare(tuned, sure, nearly, own)
    certain = Prediction(own[0], 0.999, [(own[0], 0.999), *((name, 0.0) for name in own[1:])])
    tuned = answerer.open("run", None)
    assert "both are sure" in compare(tuned, certain, certain, own)


def test_a_run_can_be_chosen(run, tmp_path, picture):
    run("CoOp", "one", OPTIM__MAX_EPOCH=1)
    run("GDA", "two")
    answerer = Answerer({"one": tmp_path / "one", "two": tmp_path / "two"})
    titles = [answerer.answer(picture, "", run=name).columns[0].title for name in ("one", "two")]
    assert titles == ["CoOp", "GDA"]
    assert answerer.answer(picture, "").columns[0].title == "CoOp", "the first, if none is named"
    assert answerer.is_own("\n".join(answerer.names("two")))
    assert not answerer.is_own(NEW)
    with pytest.raises(ValueError, match="there is no run three; choose one of one, two"):
        answerer.answer(picture, "", run="three")


def test_a_class_name_is_text_and_whole_in_its_tooltip(run, tmp_path, picture):
    run("CoOp", OPTIM__MAX_EPOCH=1)
    long = '<img src=x onerror="alert(1)"> & ' + 30 * "long "
    found = markup(Answerer({"run": tmp_path / "run"}).answer(picture, f"{long}, owl"))
    safe = "&lt;img src=x onerror=&quot;alert(1)&quot;&gt; &amp; " + " ".join(30 * ["long"])
    assert found.count(f'title="{safe}"') == found.count(f">{safe}<")
    assert found.count(f'title="{safe}"') >= 2, "in both columns"
    assert "<img" not in found
    assert "text-overflow: ellipsis" in found
    assert '<div class="problem">&lt;b&gt;</div>' in problem("<b>")
