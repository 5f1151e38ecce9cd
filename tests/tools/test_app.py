"""The command that serves the page."""

import sys

import pytest

from tools import app
from tools.app import embedded_run


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
