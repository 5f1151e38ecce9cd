"""Words of users in tables that other programs show: spreadsheets, Markdown."""

from __future__ import annotations

import re

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet would run."""
MARKUP = re.compile(r"[\\|`*]|\](?=\()|(?<![^\W_])_|_(?![^\W_])")


def csv_cell(value: object) -> object:
    """A cell of a CSV: words that a spreadsheet would run get an apostrophe; numbers stay."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def csv_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose cells may be written to a CSV."""
    return frame.map(csv_cell).rename(columns=csv_cell)


def markdown_text(value: object) -> object:
    """Words that Markdown shows as they are: no HTML, link, emphasis or end of a cell in them."""
    if not isinstance(value, str):
        return value
    text = value.replace("&", "&amp;").replace("<", "&lt;")
    return MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def markdown_table(frame: pd.DataFrame, **options: object) -> str:
    """A table in Markdown.

    Args:
        frame: whose columns are the headings.
        options: of `DataFrame.to_markdown`.
    """
    shown = frame.map(markdown_text).rename(columns=markdown_text)
    return str(shown.to_markdown(index=False, **options))
