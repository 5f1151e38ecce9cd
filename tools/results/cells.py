"""Escape words of users for tables that other programs show: spreadsheets, Markdown."""

import re

import pandas as pd

from runs.record import csv_cell

MARKUP = re.compile(r"[\\|`*]|\](?=\()|(?<![^\W_])_|_(?![^\W_])")


def csv_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose cells may be written to a CSV."""
    return frame.map(csv_cell).rename(columns=csv_cell)


def markdown_text(value: object) -> object:
    """Escape words so that Markdown shows them as they are: no HTML, link, emphasis or cell end."""
    if not isinstance(value, str):
        return value
    text = value.replace("&", "&amp;").replace("<", "&lt;")
    return MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def markdown_table(frame: pd.DataFrame, **options: object) -> str:
    """Return a table in Markdown, with the options of `DataFrame.to_markdown`."""
    shown = frame.map(markdown_text).rename(columns=markdown_text)
    return str(shown.to_markdown(index=False, **options))
