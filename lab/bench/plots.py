"""Plots of the cost by the number of classes, of kept patches, and by batch size."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from lab.bench.rows import KEY
from lab.bench.tables import TITLES, newest
from runs.figure_style import plt, save

LABELS = {
    "classes": "classes",
    "tokens": "patches that enter the last block",
    "batch": "batch size, pictures",
}
STYLES = {"ours": "-o", "published": "--s", "zero-shot": ":^", "stored": "-.v"}
COMMANDS = ("train", "eval")
# What a label names where it is not the same in all lines, beside trainer and form.
OTHERS = {
    "backbone": "{}",
    "dtype": "{}",
    "device_name": "{}",
    "threads": "{:.0f} threads",
    "classes": "{:.0f} classes",
    "batch": "batch {:.0f}",
    "prune": "pruned {}",
}


def by_block(frame: pd.DataFrame) -> pd.DataFrame:
    """Pruned rows, whose column "prune" names the blocks alone; our exact rows beside each."""
    block = frame["prune"].str.replace(r":\d+", "", regex=True)
    exact = frame[(block == "") & (frame["form"] == "ours")]
    pruned = frame[block != ""].assign(prune="in block " + block)
    return pd.concat([pruned, *[exact.assign(prune=name) for name in pruned["prune"].unique()]])


def lines(frame: pd.DataFrame, axis: str) -> Iterator[pd.DataFrame]:
    """Sets of rows that differ in one axis alone, two or more; of kept patches three or more."""
    least, frame = (3, by_block(frame)) if axis == "tokens" else (2, frame)
    same = [name for name in KEY if name not in (axis, "note")]
    for _, rows in frame.groupby(same, sort=False, dropna=False):
        if rows[axis].nunique() >= least:
            yield rows.drop_duplicates(axis, keep="last").sort_values(axis)


def labels(found: list[pd.DataFrame], axis: str) -> list[str]:
    """Trainer and form of each line, and the conditions that are not the same in all lines."""
    firsts = pd.DataFrame([rows.iloc[0] for rows in found])
    parts = firsts[["trainer", "form"]].copy()
    for name, layout in OTHERS.items():
        if name != axis and firsts[name].nunique() > 1:
            parts[name] = [value and layout.format(value) for value in firsts[name]]
    return [", ".join(filter(None, row)) for row in parts.itertuples(index=False)]


def draw(axes: Axes, found: list[pd.DataFrame], axis: str, title: str) -> None:
    """One panel: milliseconds of a picture, with the spread of the rounds.

    Where every row says it, by classes: the time over zero-shot CLIP's in the same run. Runs with
    other numbers of classes differ by what else the machine did.
    """
    trainers = list(dict.fromkeys(rows["trainer"].iloc[0] for rows in found))
    versus = pd.concat([rows["against_zero_shot"] for rows in found])
    is_ratio = axis == "classes" and bool(versus.notna().all())
    for rows, label in zip(found, labels(found, axis), strict=True):
        cost = 1 / rows["against_zero_shot"] if is_ratio else 1e3 / rows["images_per_s"]  # ms
        low, high = (cost * rows[name] / rows["median_s"] for name in ("min_s", "max_s"))
        colour = f"C{trainers.index(rows['trainer'].iloc[0])}"
        style = STYLES[rows["form"].iloc[0]]
        axes.plot(rows[axis], cost, style, color=colour, label=label, markersize=4)
        axes.fill_between(rows[axis], low, high, color=colour, alpha=0.15)
    what = "time over zero-shot CLIP's, same run" if is_ratio else "ms a picture"
    axes.set(xlabel=LABELS[axis], ylabel=what, title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    if axis == "tokens":
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        return
    axes.set(xscale="log", yscale="log", xticks=sorted({x for rows in found for x in rows[axis]}))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    for side in (axes.xaxis, axes.yaxis):
        side.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())


def write_plots(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw what the rows allow: cost_by_classes.png, cost_by_tokens.png, cost_by_batch.png."""
    frame, written = newest(frame), []
    # Zero-shot CLIP is one method, whatever it was timed beside.
    frame = frame.assign(trainer=frame["trainer"].where(frame["form"] != "zero-shot", "CLIP"))
    for axis in LABELS:
        panels = {name: list(lines(frame[frame["command"] == name], axis)) for name in COMMANDS}
        panels = {name: found for name, found in panels.items() if found}
        if not panels:
            continue
        size = (7 * len(panels), 5)
        figure, grid = plt.subplots(1, len(panels), figsize=size, squeeze=False)
        for axes, (name, found) in zip(grid[0], panels.items(), strict=True):
            draw(axes, found, axis, TITLES[name])
        written.append(folder / f"cost_by_{axis}.png")
        save(figure, written[-1], dpi=120, bbox_inches="tight")
    return written
