"""The model card says what results.json says, and what it cannot know."""

import json

import pandas as pd
import pytest

from runs.record import Predicted, write_predictions
from tools.results.card import model_card

NAMES = ["bee", "big|cat"]
DESCRIBED = {
    "trainer": "Spotlighter", "backbone": "tiny-emoji", "class_names": NAMES, "temperature": 1.5,
    "checkpoint": {"sha256": "abc"}, "versions": {"git": "0123"},
}
RESULTS = {
    "dataset": "my photos-3f2a91", "data": "99aa", "class_names": NAMES, "shots": 16, "seed": 1,
    "n": 25, "accuracy": 80.0, "macro_f1": 79.126, "nll": 0.51234, "ece": 4.567, "split": "test",
}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    rows = [Predicted(i % 2, int(i > 5), "x", 0.5, 0.5) for i in range(10)]
    write_predictions(tmp_path, rows, NAMES)
    return tmp_path


def test_a_card_has_data_classes_accuracy_calibration_and_limits(run):
    card = model_card(run, DESCRIBED)
    assert card.startswith("# Spotlighter on my photos-3f2a91\n")
    assert "## Classes\n\nbee, big\\|cat\n" in card
    for row in ("accuracy, percent | 80.00", "macro F1, percent | 79.13", "ece, percent | 4.57"):
        assert f"| {row} |" in card
    assert "| temperature | 1.5 |" in card
    assert "25 pictures of the same collection (standard error 8.0 points)" in card
    assert "has seen drawings of emoji alone" in card
    assert "    python classify_onnx.py FOLDER" in card
    found = pd.read_csv(run / "predictions.csv")
    for label, name in enumerate(("bee", r"big\|cat")):
        own = found[found.label == label]
        cells = [name, str(len(own)), f"{100 * (own.predicted == label).mean():.1f}"]
        assert [c.strip() for c in row_of(card, name)] == cells


def row_of(card, name):
    (line,) = [line for line in card.splitlines() if line.startswith(f"| {name} ")]
    return line.replace(r"\|", "\0").strip("|").replace("\0", r"\|").split(" | ")


def test_figures_of_other_classes_are_not_claimed(run):
    card = model_card(run, DESCRIBED | {"class_names": ["dog"], "backbone": "ViT-B/16"})
    assert "no figures of this model: the run was tested on other classes" in card
    assert "80.00" not in card
    assert "gaps and biases" in card


def test_a_run_without_results_has_a_card(tmp_path):
    card = model_card(tmp_path, DESCRIBED | {"checkpoint": None})
    assert "no figures of this model: the run left no results" in card
    assert "| checkpoint (SHA-256) | none: not trained |" in card


def test_older_results_have_fewer_figures(run):
    old = {key: value for key, value in RESULTS.items() if key not in ("nll", "ece")}
    (run / "results.json").write_text(json.dumps(old))
    assert "| accuracy, percent | 80.00 |" in model_card(run, DESCRIBED)


def test_pictures_that_were_trained_on_are_named(run):
    (run / "results.json").write_text(json.dumps(RESULTS | {"trained_on_test_pictures": 3}))
    assert "3 training pictures were test pictures, too" in model_card(run, DESCRIBED)
