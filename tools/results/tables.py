"""Tables of results for the terminal, Markdown and LaTeX, with the published figures."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from rich.markup import escape
from rich.table import Table

from tools.results.cells import markdown_table, markdown_text
from tools.results.read import CALIBRATION, CLASSES, EFFORT
from tools.results.rows import AVERAGE, shots_in_order
from tools.sweeps.names import shots_in_words

HEADINGS = {"dataset": "data set", "hm": "HM of means", "hm_mean": "mean of HMs"}
HEADINGS |= {name: name.replace("_per_", "/").replace("_", " ") for name in EFFORT + CALIBRATION}
HEADINGS["train_s"] = "training s"
MISSING = "missing"
ALL = "all"  # the training pictures, where shots are below 0
NAMES = ["dataset", "trainer", "config", "settings"]  # columns of words
DEVIATION = "±: standard deviation of a sample of seeds (n - 1)"
# Base to new, 16 shots, ViT-B/16, percent, as printed in its sources, which README.md describes.
PUBLISHED = Path(__file__).parents[2] / "docs" / "published" / "base2new.csv"
PRINTED = "published, "  # before the source of a row, in place of its config
OUR_NAMES = {"Flowers102": "OxfordFlowers", "DTD": "DescribableTextures", "CLIP": "ZeroshotCLIP"}


def read_published() -> pd.DataFrame:
    """Return the published table."""
    columns: dict[str, type] = dict.fromkeys(("dataset", "method", "source"), str)
    columns |= dict.fromkeys(("base", "new", "hm"), float)
    try:
        return pd.read_csv(PUBLISHED, usecols=list(columns), dtype=columns)
    except ValueError as error:
        raise ValueError(f"{PUBLISHED} is not a table of {', '.join(columns)}: {error}") from error


def with_published(summary: pd.DataFrame) -> pd.DataFrame:
    """Return a summary with the published rows of its data sets; their average only beside all."""
    figures = read_published().replace({"dataset": OUR_NAMES, "method": OUR_NAMES})
    benchmarks = set(figures["dataset"]) - {"Average"}
    wanted = set(summary["dataset"]) - {AVERAGE}
    if wanted == benchmarks:
        figures = figures.replace({"dataset": {"Average": AVERAGE}})
        wanted.add(AVERAGE)
    rows = figures[figures["dataset"].isin(wanted)].rename(columns={"method": "trainer"})
    if rows.empty:
        return summary
    config = PRINTED + rows["source"]
    labels = {"config": config, "settings": "", "shots": 16, "source": rows["dataset"]}
    rows = rows.assign(trainer=rows["trainer"] + ", published", **labels)
    return pd.concat([summary, rows], ignore_index=True)


def to_text(summary: pd.DataFrame) -> pd.DataFrame:
    """Return a summary as strings; without settings, or columns of classes, that no run has.

    What the literature does not print is empty, and a score whose run lacks is missing. Effort, nll
    and ece are empty where results do not say them (logs, older versions, kept features), and no
    columns where all are.
    """
    text = summary[[*NAMES, "shots"]].astype(str).replace({"shots": {"-1": ALL}})
    if not text["settings"].any():
        text = text.drop(columns="settings")
    text["seeds"] = summary["seeds"].map(lambda n: "" if pd.isna(n) else f"{n:.0f}")
    tested = [name for name in CLASSES if summary[name].notna().any()]
    paired = ["base", "new", "hm", "hm_mean"] if {"base", "new"} & set(tested) else []
    for name in (["all"] if "all" in tested else []) + paired:
        text[name] = with_deviation(summary, name).where(summary[name].notna(), MISSING)
    for name in EFFORT:
        if summary[name].notna().any():
            text[name] = summary[name].map(rounded)
    for name in CALIBRATION:
        if name in summary and summary[name].notna().any():
            cells = with_deviation(summary, name, digits=3 if name.startswith("nll") else 2)
            text[name] = cells.where(summary[name].notna(), "")
    unprinted = [name for name in ("hm_mean", *EFFORT) if name in text]
    text.loc[summary["config"].astype(str).str.startswith(PRINTED), unprinted] = ""
    return text


def by_shots(table: pd.DataFrame, label: pd.Series) -> pd.DataFrame:
    """Return a table of few-shot runs with a column of accuracy for each number of shots.

    `label` takes the place of the trainers, and of configs and settings that differ. Other figures
    are those at the most shots. A table of one number of shots stays as it is.
    """
    shots = table["shots"].replace(ALL, -1).astype(int)
    if "all" not in table or shots[shots != 0].nunique() < 2:
        return table
    lost = [name for name in ("config", "settings") if name in table and table[name].nunique() > 1]
    table = table.assign(trainer=label).drop(columns=lost)
    line = ["dataset", "trainer"]
    wide = table.assign(shots=shots).pivot(index=line, columns="shots", values="all").fillna("")
    wide = wide.sort_index(axis="columns", key=lambda column: shots_in_order(column.to_series()))
    wide.columns = map(shots_in_words, wide.columns)
    most = shots_in_order(shots).groupby([table[name] for name in line], sort=False).idxmax()
    rest = table.loc[most].drop(columns=["shots", "all"])
    words = [name for name in (*NAMES, "seeds") if name in rest]
    found = rest.join(wide, on=line)
    return found[[*words, *wide.columns, *rest.columns.difference(words, sort=False)]]


def rounded(number: float) -> str:
    """Return a number as a table shows it: a digit after the point of what is below 10."""
    if pd.isna(number):
        return ""
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"


def with_deviation(summary: pd.DataFrame, name: str, digits: int = 2) -> pd.Series:
    """Return a column of figures as strings, with its deviations where there are any."""
    text = summary[name].map(f"{{:.{digits}f}}".format)
    if f"{name}_std" not in summary:
        return text
    deviations = summary[f"{name}_std"].map(f" ± {{:.{digits}f}}".format, na_action="ignore")
    return text + deviations.fillna("").astype(str)


def without_constants(text: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return a table without the settings that are the same in all rows, and a caption of them."""
    settings = [name for name in ("config", "settings", "shots", "seeds") if name in text]
    same = {name: text[name].iloc[0] for name in settings if text[name].nunique() == 1}
    words = {"seeds": "number of seeds"}  # "seeds 1" reads like the seed
    caption = ", ".join(f"{words.get(name, name)} {value}" for name, value in same.items())
    return text.drop(columns=list(same)), caption


def to_rich(text: pd.DataFrame, title: str, narrow: bool = False) -> Table:
    """Return a terminal table; its caption holds what is the same in all rows.

    `narrow` breaks headings of figures between words, and has no space beside the lines.
    """
    shown, caption = without_constants(text)
    if text.map(lambda cell: "±" in cell).any(axis=None):
        caption += f"\n{DEVIATION}"
    space = (0, 0) if narrow else (0, 1)
    table = Table(title=escape(title), caption=escape(caption.strip()), padding=space)
    for name in shown.columns:
        heading = HEADINGS.get(name, name)
        if name in NAMES:
            table.add_column(heading, overflow="fold")
        else:  # figures are never cut, however narrow the terminal
            cells = [*(heading.split() if narrow else [heading]), *shown[name]]
            table.add_column(heading, justify="right", width=max(map(len, cells)))
    for row, end in zip(shown.itertuples(index=False), group_ends(text), strict=True):
        table.add_row(*map(escape, row), end_section=end)
    return table


def group_ends(text: pd.DataFrame) -> list[bool]:
    """Whether a row is the last of its data set."""
    return list(text["dataset"] != text["dataset"].shift(-1))


def new_classes(text: pd.DataFrame) -> str:
    """Return what the trainers of a table know of new classes, in a sentence.

    "" for a table without new classes, and for trainers of other projects.
    """
    if "new" not in text:
        return ""
    return new_classes_of(text["trainer"].unique())


def new_classes_of(names: Iterable[str]) -> str:
    """Return what trainers know of new classes: each phrase, with its trainers."""
    import trainers  # noqa: F401  (registers them; this loads torch)
    from trainers.base import trainer_named, trainer_names

    found: dict[str, list[str]] = {}
    for name in names:
        if name in trainer_names() and hasattr(trainer_named(name), "new_classes"):
            found.setdefault(trainer_named(name).new_classes, []).append(name)
    phrases = (f"{phrase} ({', '.join(own)})" for phrase, own in found.items())
    return f"What new classes get: {'; '.join(phrases)}." if found else ""


def to_markdown(text: pd.DataFrame, title: str) -> str:
    """Return a Markdown table under its title, and what is said of new classes."""
    table = markdown_table(text.rename(columns=HEADINGS), disable_numparse=True)
    note = markdown_text(new_classes(text))
    return f"## {markdown_text(title)}\n\n{table}\n" + (f"\n{note}\n" if note else "")


def to_latex(text: pd.DataFrame, title: str) -> str:
    r"""Return a LaTeX table with the rules of booktabs (\usepackage{booktabs}).

    What is said of new classes is a comment above it.
    """
    layout = "".join("l" if name in NAMES else "r" for name in text.columns)
    table = text.rename(columns=HEADINGS).to_latex(index=False, escape=True, column_format=layout)
    lines = table.replace("±", "$\\pm$").splitlines()
    first = lines.index("\\midrule") + 1
    for row, is_last in reversed(list(enumerate(group_ends(text)[:-1], first))):
        if is_last:
            lines.insert(row + 1, "\\midrule")
    note = new_classes(text)
    return "\n".join([f"% {title}", *([f"% {note}"] if note else []), *lines, ""])


def published_table() -> Table:
    """Return the averages of the published table, best first."""
    caption = "published: mean of 11 data sets, ViT-B/16, 16 shots (docs/published/README.md)"
    table = Table("trainer", "base", "new", "HM", "source", caption=caption)
    averages = read_published().query("dataset == 'Average'")
    for row in averages.sort_values("hm", ascending=False, kind="stable").itertuples():
        table.add_row(row.method, *map("{:.2f}".format, (row.base, row.new, row.hm)), row.source)
    return table
