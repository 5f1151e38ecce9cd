"""The command that serves the page."""

import os
import sys

import pytest

from tools import app
from tools.app import embedded_run, runs_to_choose


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert app.main([]) == 2
    assert capsys.readouterr().err == f"app: error: {app.MISSING}\n"


def test_no_run_is_a_sentence(tmp_path, capsys):
    pytest.importorskip("gradio", reason="Gradio is not installed")
    assert app.main(["--model-dir", str(tmp_path)]) == 2
    assert "holds no config.yaml" in capsys.readouterr().err


def test_help_ends_with_an_example(capsys):
    with pytest.raises(SystemExit, match="0"):
        app.main(["--help"])
    assert "python tools/app.py --model-dir output/my_run" in capsys.readouterr().out


@pytest.mark.thorough
def test_the_embedded_run_is_trained_once(tmp_path, capfd):
    options = ("OPTIM.MAX_EPOCH", "1")
    folder = embedded_run("data", tmp_path / "run", *options)
    assert (folder / "prompt_learner" / "model.pth.tar-1").is_file()
    assert "Training Spotlighter on EmojiFood once" in capfd.readouterr().out
    embedded_run("data", tmp_path / "run", *options)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("port", ["99999", "65536", "-1", "one", "9" * 5000, "٣"])
def test_a_port_that_is_none_is_a_sentence(port, capsys):
    with pytest.raises(SystemExit, match="2"):
        app.main(["--port", port])
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"argument --port: must be a whole number from 0 to 65535, got {port:.60}")


def test_the_last_port_is_tried(monkeypatch):
    pytest.importorskip("gradio", reason="Gradio is not installed")
    from inference.web import page

    monkeypatch.setattr(page, "PORTS", 1000)
    with pytest.raises(OSError, match="no free port from 65535 to 65535"):
        page.free_port("192.0.2.1", 65535)  # no address of this machine


def leave_run(folder, age, name="model.pth.tar-1"):
    """What a run leaves: a config and a checkpoint, so many seconds old."""
    (folder / "prompt_learner").mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    (folder / "prompt_learner" / "checkpoint").write_text(name)
    (folder / "prompt_learner" / name).write_text("")
    os.utime(folder / "prompt_learner" / name, (10**9 - age, 10**9 - age))


def test_runs_below_the_output_can_be_chosen_the_newest_first(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "EMBEDDED", tmp_path / "none")
    output = tmp_path / "output"
    for name, age in (("old", 30), ("deep/er/new", 10), ("mine", 20)):
        leave_run(output / name, age)
    (output / "untrained").mkdir()
    (output / "untrained" / "config.yaml").write_text("")
    found = runs_to_choose(output / "mine", output)
    assert list(found) == ["output/mine", "output/deep/er/new", "output/old"]
    assert found["output/old"] == output / "old"
    monkeypatch.setattr(app, "MOST", 1)
    found = runs_to_choose(str(tmp_path / "elsewhere"), output)
    assert list(found) == ["elsewhere", "output/deep/er/new"]
    leave_run(output / "embedded", 40)
    monkeypatch.setattr(app, "EMBEDDED", output / "embedded")
    assert list(runs_to_choose(output / "mine", output))[:2] == [
        "output/mine",
        "embedded tiny CLIP (food)",
    ]
