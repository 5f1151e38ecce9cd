"""Rows as tables: on the terminal, and as Markdown."""

from pathlib import Path

import pandas as pd
from rich.table import Table

from lab.bench.rows import KEY
from tools.results.cells import markdown_table

WORD = "{}"  # the layout of words; they stand at the left of their column
# Column of a row: its heading and layout.
HEADINGS = {
    "trainer": ("trainer", WORD),
    "form": ("form", WORD),
    "prune": ("pruning", WORD),
    "classes": ("classes", "{:.0f}"),
    "batch": ("batch", "{:.0f}"),
    "dtype": ("dtype", WORD),
    "workers": ("workers", "{:.0f}"),
    "median_s": ("seconds", "{:.3g}"),
    "spread": ("min .. max", WORD),
    "images_per_s": ("images/s", "{:.1f}"),
    "speedup": ("x published", "{:.2f}"),
    "against_zero_shot": ("x zero-shot", "{:.2f}"),
    "extra_mb": ("extra MB", "{:,.0f}"),
    "gflop_per_s": ("GFLOP/s", "{:,.0f}"),
    "share": ("of machine", "{:.0%}"),
    "part": ("of the tower", "{:.1%}"),
    "max_error": ("max. error", "{:.1e}"),
    "note": ("note", WORD),
}
WORDS = {heading for heading, layout in HEADINGS.values() if layout == WORD}
# Stand above a table, once, where they are the same in all its rows.
CONDITIONS = ["backbone", "image_size", "dtype", "device_name", "threads", "torch", "git"]
# Left out of a narrow terminal's table, in this order; the Markdown table has them.
OPTIONAL = (
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
    "run": "Whole trainings, counted from steps",
    "second": "A second trainer on the same test pictures",
    "tower": "The image tower and its matrix products",
    "compare": "A comparison of trainers",
    "start": "From the start of train.py to its first step",
}
LEGEND = """\
Seconds are the median of a step, a batch or a pass of the loader over interleaved rounds, with the
fastest and the slowest round. "x published" and "x zero-shot" are how many times faster a form is
than the published one (of the loader: than decoding every picture in every pass; of a second
trainer and of a comparison: than without a store), and than zero-shot CLIP with its text features
at hand, image for image. "stored" is ours with features of the frozen image tower at hand. "Of the
tower" is a time over that of the whole image tower: of its matrix products alone, in turns with it,
and of the parts that a profile names. Extra MB: peak of tensor memory
during a call, less what was there before. "Of machine" is the share of the rate that the same
machine reaches in matrix products of the image tower's shapes and dtype, measured in the same
rounds. The maximal error is that of our logits against the published ones, in float32, over the
largest logit. The released Spotlighter is another method than ours, and pruning is not exact:
neither is checked to be equal.
"""


def newest(frame: pd.DataFrame) -> pd.DataFrame:
    """The last row of each measurement, in the order in which they were first made."""
    return frame.drop_duplicates(KEY, keep="last")


def to_text(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows as strings under headings, without empty columns and shared conditions."""
    spread = [f"{a:.3g} .. {b:.3g}" for a, b in zip(frame.min_s, frame.max_s, strict=True)]
    shown, text = frame.assign(spread=spread), pd.DataFrame(index=frame.index)
    for column, (heading, layout) in HEADINGS.items():
        values = shown[column]
        is_shared = column in CONDITIONS and values.nunique() == 1
        if not (is_shared or values.isna().all() or (values == "").all()):
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
    """A terminal table of one command's rows; columns are left out until it fits `width`."""
    text = to_text(frame)
    for name in OPTIONAL:
        # A column takes its widest cell, a border and a blank on either side.
        widths = [max(map(len, [column, *text[column]])) + 3 for column in text]
        if width is None or sum(widths) < width:
            break
        text = text.drop(columns=name, errors="ignore")
    table = Table(title=TITLES[command], caption=conditions(frame))
    for name in text.columns:
        table.add_column(name, justify="left" if name in WORDS else "right", no_wrap=True)
    for row in text.itertuples(index=False):
        table.add_row(*row)
    return table


def write_markdown(frame: pd.DataFrame, path: Path) -> None:
    """One section a command and a set of conditions, of the newest rows."""
    sections = ["# Speed\n"]
    keys = ["command", "backbone", "device_name", "threads"]
    for (command, *_), rows in newest(frame).groupby(keys, sort=False, dropna=False):
        table = markdown_table(to_text(rows), disable_numparse=True)
        sections.append(f"## {TITLES[command]}\n\n{conditions(rows)}.\n\n{table}\n")
    path.write_text("\n".join([*sections, LEGEND]), encoding="utf-8")
