"""What the pages tell to type would be understood."""

import pytest

import trainers  # noqa: F401  (registers their keys)
from tests.commands import PROJECT, check, commands

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_the_pages_are_understood(page, monkeypatch):
    for variables, words in commands(page.read_text()):
        try:
            check(variables, words, monkeypatch)
        except BaseException as error:
            raise AssertionError(f"{page.name}: {' '.join(words)}: {error!r}") from error


def test_commands_are_found():
    text = """
Text with `bash scripts/dg.sh CoOp imagenet 1` and `bash scripts/coop/main.sh dtd`.

    A="1 2" B=3 bash scripts/xd.sh CoOp imagenet 1   # a reason
    python train.py --root /data \\
      SEED 1

```
find . | python tools/predict.py --model-dir a | sort
python tools/sweep.py ...
```
"""
    assert commands(text) == [
        ({"A": "1 2", "B": "3"}, ["scripts/xd.sh", "CoOp", "imagenet", "1"]),
        ({}, ["train.py", "--root", "/data", "SEED", "1"]),
        ({}, ["tools/predict.py", "--model-dir", "a"]),
        ({}, ["scripts/dg.sh", "CoOp", "imagenet", "1"]),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "python train.py --sead 1",
        "python train.py --seed 1 OPTIM.LRR 1",
        "python train.py --config-file configs/trainers/CoOp/gone.yaml",
        "python tools/report.py output --ouput x",
        "python tools/gone.py",
        "bash scripts/dg.sh CoOp imagenet 1 gone",
        "bash scripts/demo.sh emoji_gone",
    ],
)
def test_wrong_commands_are_noticed(line, monkeypatch):
    [(variables, words)] = commands(f"    {line}")
    with pytest.raises(BaseException):  # noqa: B017, PT011
        check(variables, words, monkeypatch)
