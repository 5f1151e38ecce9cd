"""Results, names and files that no run of ours leaves: a sentence, or shown as they are."""

import errno
import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tools.conftest import write_run
from tests.tools.test_collect_results import TRAIN_LOG, record, write_result
from tools import collect_results, report
from tools.results.read import read_runs

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)
ODD_NAMES = ["[red]x[/red]", "[/nope]", "a|b", "$x_$ and $y", "50%_&#{}~^\\", "<img src=x>", "名"]


@settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from([*sorted(record()), "nll", "ece"]), JSON)
def test_any_value_of_any_field(tmp_path, capsys, field, value):
    """In the tables or skipped with a sentence; figures are finite and none is beyond 100 %."""
    path = tmp_path / "run" / "results.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record(**{field: value})))
    code = collect_results.main([str(tmp_path), "--latex", str(tmp_path / "t.tex")])
    said = capsys.readouterr().err
    assert code == 0 or said.startswith(f"skipped {path}: ")
    for run in read_runs(tmp_path):
        assert 0 <= run["accuracy"] <= 100
        for name in (*collect_results.EFFORT, *collect_results.MEASURES):
            assert run[name] is None or math.isfinite(run[name])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("accuracy", True), ("accuracy", float("nan")), ("accuracy", 100.5)),
        *(("nll", -0.1), ("nll", float("inf")), ("nll", "1"), ("ece", 100.5), ("trainer", "a\nb")),
    ],
)
def test_what_is_no_result_is_skipped(tmp_path, capsys, field, value):
    write_result(tmp_path, seed=2)
    folder = write_result(tmp_path, seed=3)
    (folder / "results.json").write_text(json.dumps(record(**{field: value})))
    assert len(list(read_runs(tmp_path))) == 1
    assert f"seed3/results.json: {field} is {value!r}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_shown_as_they_are(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "run" / "results.json"
    path.parent.mkdir()
    odd = record(trainer=name, dataset=name, source=name, config=name, class_names=[name, "cat"])
    path.write_text(json.dumps(odd))
    (path.parent / "predictions.csv").write_text("label,predicted\n0,1\n1,1\n")
    markdown, latex = tmp_path / "t.md", tmp_path / "t.tex"
    words = [str(tmp_path), "--markdown", str(markdown), "--latex", str(latex)]
    assert collect_results.main(words) == 0
    assert name in capsys.readouterr().out
    cells = markdown.read_text().splitlines()[-1].replace(r"\|", "")
    assert cells.count("|") == markdown.read_text().splitlines()[2].count("|")
    assert latex.read_text().count(r"\\") == 2  # the heading and the run
    assert report.main([str(tmp_path)]) == 0
    html = (tmp_path / "report.html").read_text()
    assert "<img src=x>" not in html
    assert html.count(">Confusion<") == 2  # a link and a heading


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\0,", b"a,b\n1,2\n", b"label,predicted\n0,99\n", b"label,predicted\na,b\n"],
)
def test_predictions_that_say_nothing_are_named(tmp_path, content):
    folder = write_run(tmp_path)
    (folder / "predictions.csv").write_bytes(content)
    (folder / "config.yaml").write_bytes(b"\xff")
    assert report.main([str(tmp_path)]) == 0
    html = (tmp_path / "report.html").read_text()
    assert f"{folder.name}/predictions.csv does not say what was predicted: " in html


def test_a_run_of_ours_that_is_not_done_is_not_taken_from_its_log(tmp_path, capsys):
    """As one that was done, is made longer, and was killed meanwhile."""
    folder = tmp_path / "train_base/dtd/shots_16/CoOp/rn50/seed1"
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text(TRAIN_LOG.format(signal="Finish training", accuracy="82.0"))
    assert [run["accuracy"] for run in read_runs(tmp_path)] == [82.0]
    (folder / "config.yaml").write_text("")
    assert list(read_runs(tmp_path)) == []
    assert "seed1/log.txt: the run did not finish" in capsys.readouterr().err


@pytest.mark.parametrize(("tool", "flag"), [(collect_results, "--csv"), (report, "--output")])
def test_a_file_that_cannot_be_written_is_named(tmp_path, capsys, monkeypatch, tool, flag):
    write_result(tmp_path)

    def mkdir(self, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert tool.main([str(tmp_path), flag, str(tmp_path / "no" / "file")]) == 2
    error = capsys.readouterr().err
    assert f"error: {tmp_path / 'no'} lies on a read-only file system; choose another" in error
