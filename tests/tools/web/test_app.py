"""The command that serves the page."""

import sys

import pytest

from tools import app
from tools.web.embedded import embedded_run


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
