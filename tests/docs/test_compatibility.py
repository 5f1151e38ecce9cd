"""docs/compatibility.md is what docs/compatibility.yaml says; WRITE_TABLE=1 writes the page."""

import os
from pathlib import Path

import pytest
import yaml

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
KINDS = {
    "repository": "Projects that run on our engine",
    "trainer": "Our trainers",
    "checkpoint": "Checkpoints",
    "log": "Logs",
    "command": "Commands",
}
FIELDS = ("name", "tried", "figure", "works", "note")
WORKS = ("yes", "no", "partly")
HEAD = """# Compatibility

Projects, trainers, checkpoints, logs and commands of CoOp and its relatives that were tried, and
what does not work. This page is made from `docs/compatibility.yaml`:

    WRITE_TABLE=1 bash scripts/test.sh tests/docs/test_compatibility.py
"""


def read_rows(path=PAGE.with_suffix(".yaml")):
    """The checked rows; every value is a text, so yes and no are quoted."""
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    for row in rows:
        if set(row) != {"kind", *FIELDS}:
            raise ValueError(f"{row} needs the fields kind, {', '.join(FIELDS)}, and no others")
        if row["kind"] not in KINDS or row["works"] not in WORKS:
            raise ValueError(
                f"{row['name']}: kind must be one of {', '.join(KINDS)} and works one of "
                f"{', '.join(WORKS)}, got {row['kind']} and {row['works']}"
            )
    return rows


def page():
    """The page, one table for each kind."""
    rows, parts = read_rows(), [HEAD]
    for kind, title in KINDS.items():
        cells = [[row[field] for field in FIELDS] for row in rows if row["kind"] == kind]
        table = [FIELDS, ["---"] * len(FIELDS), *cells]
        lines = "".join(f"| {' | '.join(line)} |\n" for line in table)
        parts += [f"## {title}\n\n{lines}"] if cells else []
    return "\n".join(parts)


def test_the_page_is_what_the_table_says():
    if os.environ.get("WRITE_TABLE") == "1":
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_row_has_a_figure_and_what_does_not_work_has_a_note():
    for row in read_rows():
        assert all(row[field] for field in ("name", "tried", "figure")), row
        assert row["works"] == "yes" or row["note"], row


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('  works: "yes"', "  works: perhaps", "perhaps"),
        ("  figure:", "  number:", "needs the fields"),
    ],
)
def test_a_wrong_row_is_refused(tmp_path, old, new, message):
    text = PAGE.with_suffix(".yaml").read_text(encoding="utf-8").replace(old, new, 1)
    (tmp_path / "page.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path / "page.yaml")
