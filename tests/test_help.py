"""Every tool answers --help, and ends with an example that can be typed.

The scripts: see tests/scripts/test_scripts.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ParsedError, examples, understand

PROJECT = Path(__file__).parents[1]
TOOLS = ["train.py"] + [
    str(path.relative_to(PROJECT))
    for folder in ("tools", "lab")
    for path in sorted((PROJECT / folder).glob("*.py"))
    if 'if __name__ == "__main__"' in path.read_text()
]


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_end_their_help_with_an_example(tool, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        understand(tool, ["--help"], monkeypatch)
    assert end.value.code == 0
    said = capsys.readouterr().out
    for program, *words in examples(said):
        if program == tool:
            with pytest.raises(ParsedError):
                understand(tool, words, monkeypatch)
        else:
            assert tool == "tools/run_protocol.py"


# Imported where they are needed: each takes from a fifth of a second to several seconds.
SLOW = {"torch", "torchvision", "clip", "matplotlib", "onnx", "ray", "gradio", "wandb"}
ASK_ALL = """
import runpy, sys

for tool in sys.argv[1:]:
    sys.argv = [tool, "--help"]
    try:
        runpy.run_path(tool, run_name="__main__")
    except SystemExit as end:
        assert end.code == 0, tool
    print("slow:", tool, *{name.split(".")[0] for name in sys.modules}, file=sys.stderr)
"""
TRAIN = """
import sys, train

args = train.parse_args(sys.argv[1:])
import datasets, trainers
from runs.config import build_config

build_config(args)
print(*{name.split(".")[0] for name in sys.modules})
"""


def test_a_help_waits_for_no_slow_import():
    words = [sys.executable, "-c", ASK_ALL, *TOOLS]
    run = subprocess.run(words, capture_output=True, text=True, check=True, cwd=PROJECT)
    found = [line.split() for line in run.stderr.splitlines() if line.startswith("slow:")]
    assert len(found) == len(TOOLS)
    assert {tool: SLOW & set(modules) for _, tool, *modules in found if SLOW & set(modules)} == {}


def test_a_run_imports_only_what_it_needs():
    """What draws, fits and reports is imported where a run does that."""
    words = ["--trainer", "Spotlighter", "--root", "data", "--output-dir", "output/x"]
    words += ["--config-file", "configs/trainers/Spotlighter/tiny_emoji.yaml"]
    words += ["--dataset-config-file", "configs/datasets/emoji_food.yaml"]
    run = subprocess.run(
        [sys.executable, "-c", TRAIN, *words], capture_output=True, text=True, check=True,
        cwd=PROJECT,
    )
    needless = {"scipy", "sklearn", "pandas", "matplotlib", "gdown", "requests", "tensorboard"}
    assert not needless & set(run.stdout.split())
