"""Show results: in the terminal, as Markdown, as LaTeX, beside the figures of the literature."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.markup import escape
from rich.table import Table

from tools.results.cells import markdown_table, markdown_text
from tools.results.read import CLASSES, EFFORT
from tools.results.rows import AVERAGE, order_rows

HEADINGS = {"dataset": "data set", "hm": "HM of means", "hm_mean": "mean of HMs"} | {
    name: name.replace("_per_", "/").replace("_", " ") for name in EFFORT
}
MISSING = "missing"
NAMES = ["dataset", "trainer", "config", "settings"]  # columns of words
# Table I of arXiv 2509.00905 as printed: base to new, 16 shots, ViT-B/16, percent.
PUBLISHED = Path(__file__).parents[2] / "docs" / "published" / "base2new.csv"
ORIGIN = "published, arXiv 2509.00905"
OUR_NAMES = {"Flowers102": "OxfordFlowers", "DTD": "DescribableTextures", "CLIP": "ZeroshotCLIP"}


def published_rows(datasets: set[str]) -> pd.DataFrame:
    """The literature's figures on some data sets as rows of a summary, labelled as published.

    Its average stands beside ours only where ours is over the same data sets.
    """
    figures = pd.read_csv(PUBLISHED).replace({"dataset": OUR_NAMES, "method": OUR_NAMES})
    benchmarks = set(figures["dataset"]) - {"Average"}
    wanted = datasets & benchmarks
    if datasets == benchmarks:
        figures = figures.replace({"dataset": {"Average": AVERAGE}})
        wanted = wanted | {AVERAGE}
    rows = figures[figures["dataset"].isin(wanted)]
    trainer = rows["method"] + ", published"
    return rows.drop(columns="method").assign(
        trainer=trainer, config=ORIGIN, settings="", shots=16, source=rows["dataset"]
    )


def beside_published(summary: pd.DataFrame) -> pd.DataFrame:
    """A summary with the published rows of its data sets among its own."""
    found = published_rows(set(summary["dataset"]) - {AVERAGE})
    return order_rows(pd.concat([summary, found])) if len(found) else summary


def format_score(mean: float, deviation: float) -> str:
    """Return "61.2", "61.2 ± 0.4" or "missing"."""
    if pd.isna(mean):
        return MISSING
    return f"{mean:.2f}" if pd.isna(deviation) else f"{mean:.2f} ± {deviation:.2f}"


def format_count(value: float) -> str:
    """Return a rounded number with thousands separators, or "missing"."""
    return MISSING if pd.isna(value) else f"{value:,.0f}"


def to_text(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the table as strings; columns of kinds of classes that no run tested are left out.

    What the literature does not print is empty, what we lack is missing. There are settings where
    runs differ in some.
    """
    text = summary[[*NAMES, "shots"]].astype(str)
    if not text["settings"].any():
        text = text.drop(columns="settings")
    text["seeds"] = summary["seeds"].map(lambda n: "" if pd.isna(n) else f"{n:.0f}")
    tested = [name for name in CLASSES if summary[name].notna().any()]
    paired = ["base", "new", "hm", "hm_mean"] if {"base", "new"} & set(tested) else []
    for name in (["all"] if "all" in tested else []) + paired:
        deviations = summary.get(f"{name}_std", pd.Series(float("nan"), summary.index))
        text[name] = [format_score(*pair) for pair in zip(summary[name], deviations, strict=True)]
    for name in EFFORT:
        text[name] = summary[name].map(format_count)
    unprinted = [name for name in ("hm_mean", *EFFORT) if name in text]
    text.loc[summary["config"] == ORIGIN, unprinted] = ""
    return text


def without_constants(text: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """A table without the settings that are the same in all rows, and a caption with them."""
    settings = [name for name in ("config", "settings", "shots", "seeds") if name in text]
    same = {name: text[name].iloc[0] for name in settings if text[name].nunique() == 1}
    number = {"seeds": "number of seeds"}  # "seeds 1" reads like the seed
    caption = ", ".join(f"{number.get(name, name)} {value}" for name, value in same.items())
    return text.drop(columns=list(same)), caption


def to_rich(text: pd.DataFrame, title: str) -> Table:
    """Return a terminal table; what is the same in all rows becomes the caption."""
    shown, caption = without_constants(text)
    table = Table(title=escape(title), caption=escape(caption))
    for name in shown.columns:
        heading = HEADINGS.get(name, name)
        if name in NAMES:
            table.add_column(heading, overflow="fold")
        else:  # figures are never cut, however narrow the terminal
            cells = [*heading.split(), *shown[name]]
            table.add_column(heading, justify="right", min_width=max(map(len, cells)))
    for row, end in zip(shown.itertuples(index=False), group_ends(text), strict=True):
        table.add_row(*map(escape, row), end_section=end)
    return table


def group_ends(text: pd.DataFrame) -> list[bool]:
    """Whether a row is the last of its data set."""
    return list(text["dataset"] != text["dataset"].shift(-1))


def to_markdown(text: pd.DataFrame, title: str) -> str:
    """Return a Markdown table under its title."""
    table = markdown_table(text.rename(columns=HEADINGS), disable_numparse=True)
    return f"## {markdown_text(title)}\n\n{table}\n"


def to_latex(text: pd.DataFrame, title: str) -> str:
    r"""Return a LaTeX table with the rules of booktabs (\usepackage{booktabs})."""
    layout = "".join("l" if name in NAMES else "r" for name in text.columns)
    table = text.rename(columns=HEADINGS).to_latex(index=False, escape=True, column_format=layout)
    head, body = table.split("\\midrule\n")
    rows, foot = body.split("\\bottomrule\n")
    ends = zip(rows.splitlines(), group_ends(text), strict=True)
    rows = "\\midrule\n".join("\n".join(lines) + "\n" for lines in _groups(ends))
    table = f"{head}\\midrule\n{rows}\\bottomrule\n{foot}".replace("±", "$\\pm$")
    return f"% {title}\n{table}"


def _groups(ends: zip) -> list[list[str]]:
    """Lines in groups, each with the line that is its end."""
    groups: list[list[str]] = [[]]
    for line, end in ends:
        groups[-1].append(line)
        if end:
            groups.append([])
    return groups[:-1]


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
