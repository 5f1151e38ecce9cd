"""Rows as tables: on the terminal, and as Markdown."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.table import Table

from lab.bench.rows import KEY
from tools.results.cells import markdown_table

HEADINGS = {
    "trainer": "trainer",
    "form": "form",
    "prune": "pruning",
    "classes": "classes",
    "batch": "batch",
    "dtype": "dtype",
    "workers": "workers",
    "median_s": "seconds",
    "spread": "min .. max",
    "images_per_s": "images/s",
    "speedup": "x published",
    "against_zero_shot": "x zero-shot",
    "extra_mb": "extra MB",
    "gflop_per_s": "GFLOP/s",
    "share": "of machine",
    "max_error": "max. error",
    "note": "note",
}
FORMATS = {
    "median_s": "{:.3g}",
    "images_per_s": "{:.1f}",
    "speedup": "{:.2f}",
    "against_zero_shot": "{:.2f}",
    "extra_mb": "{:,.0f}",
    "gflop_per_s": "{:,.0f}",
    "share": "{:.0%}",
    "max_error": "{:.1e}",
    "classes": "{:.0f}",
    "batch": "{:.0f}",
    "workers": "{:.0f}",
}
# What is said above a table, once, where it is the same in all its rows.
CONDITIONS = ["backbone", "image_size", "dtype", "device_name", "threads", "torch", "git"]
WORDS = ("trainer", "form", "pruning", "dtype", "note")
# What a narrow terminal does without, in this order; the Markdown table has it.
LEAST = (
    "note",
    "GFLOP/s",
    "min .. max",
    "of machine",
    "max. error",
    "extra MB",
    "dtype",
    "images/s",
)
TITLES = {
    "train": "Training steps",
    "eval": "Evaluated batches",
    "loader": "Passes of the training loader",
    "end2end": "Files to logits",
}


def newest(frame: pd.DataFrame) -> pd.DataFrame:
    """The last row of each measurement, in the order in which they were first made."""
    return frame.drop_duplicates(KEY, keep="last")


def to_text(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows as strings under headings, without what is empty or a condition of them all."""
    shown = frame.assign(
        spread=[f"{a:.3g} .. {b:.3g}" for a, b in zip(frame.min_s, frame.max_s, strict=True)]
    )
    text = pd.DataFrame(index=frame.index)
    for column, heading in HEADINGS.items():
        values = shown[column]
        is_condition = column in CONDITIONS and values.nunique() == 1
        if is_condition or values.isna().all() or (values == "").all():
            continue
        layout = FORMATS.get(column, "{}")
        text[heading] = ["" if pd.isna(value) else layout.format(value) for value in values]
    return text


def conditions(frame: pd.DataFrame) -> str:
    """What all rows have in common: "backbone ViT-B/16, threads 1, ..."."""
    found = []
    for name in CONDITIONS:
        values = frame[name].dropna().unique()
        if len(values) == 1 and values[0] != "":
            value = f"{values[0]:g}" if isinstance(values[0], float) else values[0]
            found.append(f"{name.replace('_', ' ')} {value}")
    return ", ".join(found)


def to_rich(frame: pd.DataFrame, command: str, width: int | None = None) -> Table:
    """A terminal table of one command's rows.

    Args:
        frame: the rows.
        command: of all of them.
        width: of the terminal; columns are left out until the table fits. None: all.
    """
    text = to_text(frame)
    for name in LEAST:
        # A column takes its widest cell, a border and a blank on either side.
        if width is None or sum(widest(text, column) + 3 for column in text) < width:
            break
        text = text.drop(columns=name, errors="ignore")
    table = Table(title=TITLES[command], caption=conditions(frame))
    for name in text.columns:
        justify = "left" if name in WORDS else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for row in text.itertuples(index=False):
        table.add_row(*row)
    return table


def widest(text: pd.DataFrame, column: str) -> int:
    """Characters of the widest cell, heading included."""
    return max(map(len, [column, *text[column]]))


def write_markdown(frame: pd.DataFrame, path: Path) -> None:
    """One section a command and a set of conditions, of the newest rows."""
    sections = ["# Speed\n"]
    keys = ["command", "backbone", "device_name", "threads"]
    for (command, *_), rows in newest(frame).groupby(keys, sort=False, dropna=False):
        table = markdown_table(to_text(rows), disable_numparse=True)
        sections.append(f"## {TITLES[command]}\n\n{conditions(rows)}.\n\n{table}\n")
    sections.append(LEGEND)
    path.write_text("\n".join(sections), encoding="utf-8")


LEGEND = """\
Seconds are the median of a step, a batch or a pass of the loader over interleaved rounds, with the
fastest and the slowest round. "x published" and "x zero-shot" are how many times faster a form is
than the published one (of the loader: than decoding every picture in every pass), and than
zero-shot CLIP with its text features at hand, image for image. Extra MB: peak of tensor memory
during a call, less what was there before. "Of machine" is the share of the rate that the same
machine reaches in matrix products of the image tower's shapes and dtype, measured in the same
rounds. The maximal error is that of our logits against the published ones, in float32, over the
largest logit. The released Spotlighter is another method than ours, and pruning is not exact:
neither is checked to be equal.
"""
