"""Texts in figures are drawn as they are."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from runs import figure_style
from runs.figure_style import plt, save

NAMES = ["$x_^2$ $\\frac", "a $5 bill, a $10 bill", "$", "\\", "{}", "%", "^_", "猫", "a\udcb9.png"]


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(figure_style, "warned_of", set())


def drawn(name, kind="png"):
    figure, axes = plt.subplots(figsize=(3, 2))
    axes.set_title(name)
    axes.set_xlabel(name)
    axes.set_yticks([0, 1], [name, "other"])
    axes.plot([0, 1], label=name)
    axes.legend()
    axes.text(0.5, 0.5, name)
    figure.suptitle(name)
    target = io.BytesIO()
    save(figure, target, tight=(0, 0, 1, 0.9), format=kind)
    return target


@pytest.mark.parametrize("name", NAMES[:-1])
def test_any_name_is_drawn(name):
    before = plt.get_fignums()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = np.asarray(Image.open(drawn(name)))
    assert pixels.std() > 0
    assert plt.get_fignums() == before


def test_a_figure_that_cannot_be_written_is_closed(tmp_path):
    before = plt.get_fignums()
    with pytest.raises(FileNotFoundError):
        save(plt.figure(), tmp_path / "missing" / "a.png")
    assert plt.get_fignums() == before


def test_bytes_of_a_name_that_are_no_text_are_escaped():
    figure = plt.figure()
    text = figure.text(0.5, 0.5, "a\udcb9.png")
    save(figure, io.BytesIO(), tight=None)
    assert text.get_text() == "a\\udcb9.png"


def test_dollars_stay():
    assert "a $5 bill, a $10 bill" in drawn("a $5 bill, a $10 bill", "svg").getvalue().decode()


def test_a_missing_glyph_is_said_once(capsys):
    for _ in range(3):
        drawn("\U0001f9ff 猫\ue000")
    said = capsys.readouterr().err
    assert said.count("boxes are drawn") == 1
    assert "\ue000" in said
    drawn("owl")
    assert capsys.readouterr().err == ""


def test_another_font_is_asked(monkeypatch, capsys):
    has = {*map(chr, range(0x250)), "\N{MINUS SIGN}", "猫"}
    monkeypatch.setattr(figure_style, "drawable", lambda: has)
    drawn("猫")
    assert capsys.readouterr().err == ""
