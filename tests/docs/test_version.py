"""Version and citation are the same wherever they stand."""

import re
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[2]


def test_citation_and_changes_are_of_the_version():
    (version,) = re.findall(r'^version = "(.*)"$', (PROJECT / "pyproject.toml").read_text(), re.M)
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert f"\n## {version}\n" in (PROJECT / "CHANGELOG.md").read_text()


def test_the_citation_has_what_its_format_asks_for():
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors"} <= set(paper)
    words = (PROJECT / "docs" / "method.md").read_text().replace("\n", " ")
    assert paper["title"] in words
