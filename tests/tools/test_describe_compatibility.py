"""The page of compatibility is what its table says."""

import pytest

from tools import describe_compatibility
from tools.describe_compatibility import PAGE, page, read_rows


def test_the_page_is_what_the_generator_makes():
    """If not: python tools/describe_compatibility.py."""
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
def test_a_wrong_row_is_refused(tmp_path, monkeypatch, old, new, message):
    text = PAGE.with_suffix(".yaml").read_text(encoding="utf-8").replace(old, new, 1)
    (tmp_path / "page.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(describe_compatibility, "PAGE", tmp_path / "page.md")
    with pytest.raises(ValueError, match=message):
        read_rows()
