"""Extras are what the requirements files say, in a form that pip takes from pyproject.toml."""

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1]
FILES = {
    path.stem.removeprefix("requirements-"): path
    for path in PROJECT.glob("requirements-*.txt")
    if path.stem != "requirements-dev"
}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in Python 3.11")
def test_every_extra_has_its_file():
    import tomllib

    read = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    extras = read["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
    assert {name: {"file": path.name} for name, path in FILES.items()} == extras


@pytest.mark.parametrize("name", FILES)
def test_an_extra_is_a_list_of_requirements(name):
    lines = FILES[name].read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert found


def test_the_readme_names_them_all():
    (named,) = re.findall(r"pip install '\.\[([^\]]*)\]'", (PROJECT / "README.md").read_text())
    assert sorted(named.split(",")) == sorted(FILES)


def test_the_developers_environment_has_them_all():
    lines = (PROJECT / "requirements-dev.txt").read_text().splitlines()
    assert {f"-r {path.name}" for path in FILES.values()} <= set(lines)
