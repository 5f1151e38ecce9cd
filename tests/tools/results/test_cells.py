"""Words of users in a CSV and in Markdown."""

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from inference.predictor import Prediction
from tests.tools.test_odd_results import ODD_NAMES
from tools import collect_results
from tools.predict import csv_writer, json_writer
from tools.results.cells import csv_cell, csv_frame, markdown_table, markdown_text

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "=HYPERLINK(1)", "-"]
WORDS = [
    *ODD_NAMES,
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "![x](http://a.b/c.png)",
    "*a* _b_ __init__ `c`",
    "a_b_c \\| d",
    "&lt;b&gt; &amp;",
    "<http://a.b>",
    "\\",
]


@pytest.mark.parametrize("word", FORMULAS)
def test_formulas_are_words(word):
    assert csv_cell(word) == f"'{word}"


@pytest.mark.parametrize("value", ["-1.5", "+3", "-1e-3", -1.5, 3, None, "cat", "a=b", "", "'=1"])
def test_numbers_and_other_words_stay(value):
    assert csv_cell(value) == value


def test_a_table_for_a_spreadsheet():
    frame = pd.DataFrame({"=name": ["=1+1", "owl"], "score": [-1.5, 2.0]})
    assert csv_frame(frame).to_csv(index=False) == "'=name,score\n'=1+1,-1.5\nowl,2.0\n"


class Cells(HTMLParser):
    """Texts of the cells of a table, and tags that are none of a table's."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.others = [], set()
        self.feed(text)

    def handle_starttag(self, tag, _):
        if tag in ("td", "th"):
            self.cells.append("")
        elif tag not in ("table", "thead", "tbody", "tr"):
            self.others.add(tag)

    def handle_data(self, data):
        if self.cells and data.strip():
            self.cells[-1] += data


@pytest.mark.parametrize("word", WORDS)
def test_markdown_shows_words_as_they_are(word):
    frame = pd.DataFrame({"name": [word], "score": ["1.0"]})
    table = markdown_table(frame, disable_numparse=True)
    shown = Cells(MarkdownIt("commonmark").enable("table").render(table))
    assert shown.cells == ["name", "score", word, "1.0"]
    assert shown.others == set()
    heading = Cells(MarkdownIt("commonmark").render(f"## of {markdown_text(word)}"))
    assert heading.others == {"h2"}


def test_a_heading_holds_no_markup(tmp_path):
    """A source of a cross-dataset table stands in its title."""
    from tests.tools.test_odd_results import record

    odd = record(dataset="Toy", source="<img src=x>", classes="all")
    (tmp_path / "results.json").write_text(json.dumps(odd))
    table, cells = tmp_path / "t.md", tmp_path / "t.csv"
    words = [str(tmp_path), "--markdown", str(table), "--csv", str(cells)]
    assert collect_results.main(words) == 0
    assert "&lt;img src=x>" in table.read_text().splitlines()[0]
    assert "<img" not in table.read_text()


def test_a_result_with_a_formula(tmp_path):
    from tests.tools.test_odd_results import record

    (tmp_path / "results.json").write_text(json.dumps(record(trainer="=1+1", config="-x")))
    path = tmp_path / "t.csv"
    assert collect_results.main([str(tmp_path), "--csv", str(path)]) == 0
    [row] = csv.DictReader(path.open())
    assert (row["trainer"], row["config"]) == ("'=1+1", "'-x")
    assert float(row["base"]) == record()["accuracy"]


class Predictor:
    class_names = ("=1+1", "owl")


def test_a_prediction_with_a_formula():
    found = Prediction("=1+1", 0.75, [("=1+1", 0.75), ("owl", 0.25)], None, None, None)
    out, exact = io.StringIO(), io.StringIO()
    csv_writer(out, 2, Predictor)(Path("-a.png"), found, None)
    [row] = csv.DictReader(io.StringIO(out.getvalue()))
    assert (row["path"], row["class"], row["probability"]) == ("'-a.png", "'=1+1", "0.750000")
    assert row["class_2"] == "owl"
    json_writer(exact, 2, Predictor)(Path("-a.png"), found, None)
    assert json.loads(exact.getvalue())["class"] == "=1+1", "JSON needs no defence"
