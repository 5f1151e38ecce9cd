"""docs/method.md names files, functions, tests and numbers that exist, and every key."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from models import fit
from models.spotlighter import evidence
from models.spotlighter.options import CHOICES
from trainers import spotlighter

PROJECT = Path(__file__).parents[2]
SOURCES = {
    path: path.read_text()
    for folder in ("models", "trainers", "runs")
    for path in sorted((PROJECT / folder).rglob("*.py"))
}
TESTS = {path: path.read_text() for path in sorted((PROJECT / "tests").rglob("test_*.py"))}
METHOD = (PROJECT / "docs" / "method.md").read_text()
NAMED = sorted(set(re.findall(r"`([^`]+)`", METHOD)))
KEYS = {field.name.upper() for field in fields(spotlighter.SpotlighterSettings)}
VALUES = {value for allowed in CHOICES.values() for value in allowed}
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?")

PATHS = [name for name in NAMED if re.fullmatch(r"[\w/]+/[\w.]*", name)]
OF_TESTS = [name for name in NAMED if name.startswith("test_")]
NAMES = [
    name
    for name in NAMED
    if DOTTED.fullmatch(name) and not re.fullmatch(r"[A-Z0-9_.]+", name) and name not in OF_TESTS
]


def defines(text, name):
    """Whether a text has a function, a class or an attribute of this name."""
    return re.search(rf"\b(def|class) {name}\b|\.{name}\b|register_buffer\(\"{name}\"", text)


@pytest.mark.parametrize("name", PATHS)
def test_files_exist(name):
    assert (PROJECT / name).exists()


@pytest.mark.parametrize("name", OF_TESTS)
def test_tests_exist(name):
    file, _, test = name.rpartition("::")
    if name.endswith(".py"):
        file, test = name, ""
    found = [text for path, text in TESTS.items() if file in ("", path.name)]
    assert any(f"def {test}(" in text for text in found) if test else found


@pytest.mark.parametrize("name", NAMES)
def test_functions_and_classes_exist(name):
    owner, _, own = name.rpartition(".")
    if not owner:
        assert name in VALUES or any(defines(text, name) for text in SOURCES.values())
        return
    homes = [t for p, t in SOURCES.items() if p.stem == owner or f"class {owner}(" in t]
    assert any(f"def {own}(" in text for text in homes)


def test_every_key_of_the_head_is_explained():
    assert {key for key in KEYS if not re.search(rf"\b{key}\b", METHOD)} == {"PREC"}


def test_keys_of_the_head_in_all_pages_exist():
    pages = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]
    named = {
        key for page in pages
        for key in re.findall(r"TRAINER\.SPOTLIGHTER\.([A-Z]\w*)", page.read_text())
    }
    assert named
    assert named <= KEYS


@pytest.mark.parametrize(
    "said",
    [
        f"F = min({fit.FOLDS}, pictures of the largest class)",
        f"RIDGE is {fit.RIDGE:.0e}".replace("e-0", "e-"),
        f"RIDGE_p is {evidence.CAUTION} for them (`CAUTION`)",
        f"and {fit.RIDGE:.0e} for the base".replace("e-0", "e-"),
        f"the global level gets {evidence.ONE_SHOT['global']} / sigma_0",
        f"both gets {evidence.ONE_SHOT['both']} / sigma_12",
        f"at most {fit.MOST_SHOTS} pictures count",
        f"of more than {fit.MOST_CLASSES} classes",
        f"kept up to {spotlighter.MOST_BYTES // 2**30} GiB",
        f"at least {spotlighter.LEAST_CROP:.0%} of the picture".replace("%", " %"),
        f"at most {spotlighter.MOST_WRITTEN} / n",
    ],
)
def test_numbers_are_those_of_the_code(said):
    assert said in " ".join(METHOD.split())
