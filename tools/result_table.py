"""Show results: as text, as a terminal table, beside the figures of the literature."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.table import Table

from tools.run_results import CLASSES, EFFORT, GROUP

HEADINGS = {"dataset": "data set", "hm": "HM"} | {
    name: name.replace("_per_", "/").replace("_", " ") for name in EFFORT
}
MISSING = "missing"
AVERAGE = "average"
# In the order of the literature's tables; others follow.
TRAINERS = ["ZeroshotCLIP", "ZeroshotCLIP2", "CoOp", "CoCoOp", "MaPLe", "PromptSRC", "PromptKD"]
# Table I of arXiv 2509.00905 as printed: base to new, 16 shots, ViT-B/16, percent.
PUBLISHED = Path(__file__).parents[1] / "docs" / "published" / "base2new.csv"


def order_rows(summary: pd.DataFrame) -> pd.DataFrame:
    """Sort by data set (the average last), then by trainer as in TRAINERS."""

    def rank(column: pd.Series) -> pd.Series:
        if column.name == "dataset":
            return column.map(lambda name: (name == AVERAGE, name))
        if column.name == "trainer":
            return column.map(lambda name: (TRAINERS.index(name) if name in TRAINERS else 99, name))
        return column

    return summary.sort_values(GROUP, key=rank, ignore_index=True)


def format_score(mean: float, deviation: float) -> str:
    """Return "61.2", "61.2 ± 0.4" or "missing"."""
    if pd.isna(mean):
        return MISSING
    return f"{mean:.2f}" if pd.isna(deviation) else f"{mean:.2f} ± {deviation:.2f}"


def format_count(value: float) -> str:
    """Return a rounded number with thousands separators, or "missing"."""
    return MISSING if pd.isna(value) else f"{value:,.0f}"


def to_text(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the table as strings; columns of kinds of classes that no run tested are left out."""
    text = summary[[*GROUP, "seeds"]].astype(str)
    tested = [name for name in CLASSES if summary[name].notna().any()]
    paired = ["base", "new", "hm"] if {"base", "new"} & set(tested) else []
    for name in (["all"] if "all" in tested else []) + paired:
        deviations = summary.get(f"{name}_std", pd.Series(float("nan"), summary.index))
        text[name] = [format_score(*pair) for pair in zip(summary[name], deviations, strict=True)]
    for name in EFFORT:
        text[name] = summary[name].map(format_count)
    return text


def to_rich(text: pd.DataFrame) -> Table:
    """Return a terminal table; what is the same in all rows becomes the caption."""
    same = {
        name: text[name].iloc[0]
        for name in ("config", "shots", "seeds")
        if text[name].nunique() == 1
    }
    table = Table(caption=", ".join(f"{name} {value}" for name, value in same.items()))
    shown = text.drop(columns=list(same))
    for name in shown.columns:
        heading = HEADINGS.get(name, name)
        if name in ("dataset", "trainer", "config"):
            table.add_column(heading, overflow="fold")
        else:  # figures are never cut, however narrow the terminal
            cells = [*heading.split(), *shown[name]]
            table.add_column(heading, justify="right", min_width=max(map(len, cells)))
    ends = text["dataset"] != text["dataset"].shift(-1)
    for row, end in zip(shown.itertuples(index=False), ends, strict=True):
        table.add_row(*row, end_section=end)
    return table


def to_markdown(text: pd.DataFrame) -> str:
    """Return a Markdown table."""
    table = text.rename(columns=HEADINGS).to_markdown(index=False, disable_numparse=True)
    return f"{table}\n"


def published_table() -> Table:
    """Return the averages of the paper's table, labelled as published.

    Raises:
        ValueError: the file does not hold such a table.
    """
    columns = {"dataset": str, "method": str, "base": float, "new": float, "hm": float}
    try:
        figures = pd.read_csv(PUBLISHED, usecols=list(columns), dtype=columns)
    except ValueError as error:
        raise ValueError(f"{PUBLISHED} is not a table of {', '.join(columns)}: {error}") from error
    figures = figures[figures["dataset"] == "Average"]
    table = Table(caption="published: mean of 11 data sets, ViT-B/16, 16 shots (arXiv 2509.00905)")
    for name in ("trainer", "base", "new", "HM"):
        table.add_column(name, justify="left" if name == "trainer" else "right")
    for row in figures.itertuples():
        table.add_row(row.method, *(f"{score:.2f}" for score in (row.base, row.new, row.hm)))
    return table
