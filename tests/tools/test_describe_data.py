"""The page on data sets says what the loaders and the tools do."""

from tests.datasets.trees import TREES
from tools.data.sources import read_sources
from tools.describe_data import BEGIN, END, PAGE, generated, page


def test_the_page_is_up_to_date():
    """If not: python tools/describe_data.py."""
    text = PAGE.read_text()
    assert page(text) == text
    assert text.count(BEGIN) == text.count(END) == 1


def test_the_rest_of_the_page_stays():
    text = page(f"before\n{BEGIN}old\n{END}after\n")
    assert text == f"before\n{BEGIN}{generated()}{END}after\n"


def test_every_data_set_is_described():
    lines = generated().splitlines()
    for name in TREES:
        pieces = [line for line in lines if line.startswith(f"| {name} | `")]
        assert [line.split("`")[1] for line in pieces] == [
            piece.file for piece in read_sources()[name]
        ]
    assert "| OxfordPets | 37 | 2,944 | 736 | 3,669 |" in lines
    assert "| ImageNetA | 200 |  |  | 7,500 |" in lines
    flowers = next(line for line in lines if line.startswith("| oxford_flowers |"))
    assert "| `imagelabels.mat`, `cat_to_name.json` |" in flowers
