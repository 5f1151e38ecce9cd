"""Figures of the HTML report, as SVG inside it. Their width suits a phone.

Matplotlib is imported when the first one is drawn.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from runs.calibration import BINS, Reliability
from tools.results.tables import HEADINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.2  # inches
LINE = 0.16  # inches from label to label
MARKERS = "os^DvPX*<>"
PANELS = 3  # of a row of reliability diagrams
SMALL = 5  # percent; smaller shares are not written into a confusion matrix
STYLE = {
    "font.size": 9,
    **{"axes.spines.top": False, "axes.spines.right": False},
    **{"axes.grid": True, "grid.alpha": 0.3},
    "svg.hashsalt": "report",  # equal results give equal bytes
    "svg.fonttype": "none",  # letters, not their outlines: a fifth of the size
}
SCORE_COLOURS = {"base": "#4c78a8", "new": "#f58518", "hm_mean": "#54a24b", "all": "#4c78a8"}


class Picture(NamedTuple):
    """A picture as a data URI, and its caption, which is its alternative text, too."""

    source: str
    text: str


def data_uri(kind: str, content: bytes) -> str:
    """Return a picture as an address that needs no network."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def subplots(*shape: int, **options: Any) -> tuple[Figure, Any]:
    """Those of pyplot."""
    from runs.figure_style import plt

    return plt.subplots(*shape, **options)


def as_picture(draw: Callable[..., Figure], *arguments: object, text: str) -> Picture:
    """Return the figure that a function draws of its arguments, with the caption `text`."""
    from cycler import cycler

    from runs.figure_style import plt, save

    buffer, twenty = io.BytesIO(), plt.get_cmap("tab20").colors
    colours = cycler(color=[*twenty[::2], *twenty[1::2]])  # the strong ones first
    with plt.rc_context(STYLE | {"axes.prop_cycle": colours}):
        save(draw(*arguments), buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    return Picture(data_uri("svg+xml", buffer.getvalue()), text)


def bars(summary: pd.DataFrame, scores: Sequence[str]) -> Figure:
    """Horizontal bars with error bars: a group for each row of the summary, a bar for a score."""
    size = (WIDTH, 0.9 + 0.17 * len(summary) * (len(scores) + 1))
    errors = summary[[f"{score}_std" for score in scores]].fillna(0).to_numpy(float).T
    style = {"color": [SCORE_COLOURS[score] for score in scores], "error_kw": {"elinewidth": 1}}
    values = summary.set_index("label")[list(scores)].rename(columns=HEADINGS)
    axes = values.plot.barh(figsize=size, width=0.8, xerr=errors, legend=False, **style)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    spread = "; mean and standard deviation over seeds" if errors.any() else ""
    axes.set(xlabel=f"accuracy, percent{spread}", ylabel="")
    if len(scores) > 1:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    return axes.figure


def shot_curves(summary: pd.DataFrame) -> Figure:
    """Accuracy over shots with error bars, a line for each label, which stands at its end.

    What was not trained (0 shots) is a dashed line over all shots.
    """
    labels = summary["label"].unique()
    figure, axes = subplots(figsize=(WIDTH, max(3.6, 1 + LINE * len(labels))))
    shots = sorted(set(summary["shots"]) - {0}, key=lambda n: (n < 0, n))  # all come last
    ends: list[tuple[str, tuple[float, float], str]] = []
    for i, label in enumerate(labels):
        points = summary[summary["label"] == label].dropna(subset="all")
        style = {"color": f"C{i}", "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
        for level in points["all"][points["shots"] == 0]:
            axes.axhline(level, color=f"C{i}", linestyle="--", linewidth=1)
            ends.append((label, (len(shots) - 1, level), f"C{i}"))
        points = points[points["shots"] != 0]
        points = points.assign(place=points["shots"].map(shots.index)).sort_values("place")
        if len(points):
            places = points["place"]
            axes.errorbar(places, points["all"], points["all_std"].fillna(0), capsize=3, **style)
            ends.append((label, (places.iloc[-1], points["all"].iloc[-1]), f"C{i}"))
    axes.set_xticks(range(len(shots)), ["all" if n < 0 else n for n in shots])
    axes.set(xlabel="training pictures a class", ylabel="accuracy, percent")
    label_ends(axes, ends)
    return figure


def label_ends(axes: Axes, ends: list[tuple[str, tuple[float, float], str]]) -> None:
    """Write labels to the right of a figure, level with the ends of their lines or near it.

    `ends`: label, end in data units, and colour of each line.
    """
    ends = sorted(ends, key=lambda end: end[1][1])
    low, high = axes.get_ylim()
    gap = LINE / (axes.figure.get_figheight() * axes.get_position().height)  # of the axes' height
    heights = spread([(y - low) / (high - low) for _, (_, y), _ in ends], gap)
    for (label, end, colour), height in zip(ends, heights, strict=True):
        line = {"arrowstyle": "-", "color": colour, "relpos": (0, 0.5)}
        where = {"xytext": (1.06, height), "textcoords": "axes fraction", "va": "center"}
        axes.annotate(label, end, **where, fontsize=8, arrowprops=line)


def spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Return ascending heights moved apart, each `gap` or more above the one before it.

    They are the mean of two solutions: one that moves heights only up, and one only down.
    """
    steps = gap * np.arange(len(heights))
    free = np.asarray(heights) - steps
    up, down = np.maximum.accumulate(free), np.minimum.accumulate(free[::-1])[::-1]
    return (up + down) / 2 + steps


def radar(summary: pd.DataFrame, score: str) -> Figure:
    """One axis for each data set, one line for each label, broken where a score is missing."""
    table = summary.pivot_table(index="label", columns="dataset", values=score, sort=False)
    angles = np.linspace(0, 2 * np.pi, len(table.columns), endpoint=False)
    figure, axes = subplots(figsize=(WIDTH, WIDTH), subplot_kw={"projection": "polar"})
    for label, row in table.iterrows():
        axes.plot(np.append(angles, 0), np.append(row, row.iloc[0]), label=label)
    axes.set_xticks(angles, table.columns)
    for label, side in zip(axes.get_xticklabels(), np.cos(angles), strict=True):
        label.set_ha("left" if side > 0.1 else "right" if side < -0.1 else "center")
    low, high = table.min(axis=None), table.max(axis=None)
    axes.set_ylim(max(0.0, low - 0.3 * (high - low + 1)), high)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
    return figure


def reliability(panels: dict[str, dict[str, tuple[Reliability, float]]]) -> Figure:
    """A panel for each label: accuracy over confidence of its classes, whose ece is named.

    Shaded: the share of the pictures in each bin. On the diagonal, confidence is accuracy.
    """
    columns = min(PANELS, len(panels))
    rows = -(-len(panels) // columns)
    shape = {"sharex": True, "sharey": True, "squeeze": False, "layout": "constrained"}
    size = (WIDTH, 0.7 + rows * WIDTH / PANELS)
    figure, grid = subplots(rows, columns, figsize=size, **shape)
    for axes, (label, curves) in zip(grid.flat, panels.items(), strict=False):
        axes.plot([0, 100], [0, 100], color="grey", linewidth=0.8, linestyle="--")
        for classes, (diagram, _) in curves.items():
            bins, colour = pd.DataFrame(diagram), SCORE_COLOURS[classes]
            shares = 100 * bins["n"] / bins["n"].sum()
            axes.stairs(shares, np.linspace(0, 100, BINS + 1), fill=True, color=colour, alpha=0.25)
            points = bins[bins["n"] > 0].astype(float)
            style = {"color": colour, "marker": ".", "linewidth": 1.2, "label": classes}
            axes.plot(points["confidence"], points["accuracy"], **style)
        scores = ", ".join(f"{classes} {ece:.1f}" for classes, (_, ece) in curves.items())
        axes.set_title("\n".join([*textwrap.wrap(label, 26), f"ece {scores}"]), fontsize=8)
        axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    lines = {line.get_label(): line for axes in grid.flat for line in axes.lines[1:]}
    figure.legend(lines.values(), lines, loc="outside upper center", ncols=2, frameon=False)
    for i in range(len(panels) - columns, grid.size):
        if i < len(panels):
            grid.flat[i].tick_params(labelbottom=True)  # nothing stands below it
        else:
            grid.flat[i].remove()
    figure.supxlabel("confidence (top probability), percent", fontsize=9)
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy; share of pictures", fontsize=8)
    return figure


def confusion_matrix(shares: pd.DataFrame) -> Figure:
    """Shares in percent of each true class (row) that were taken for each class (column)."""
    figure, axes = subplots(figsize=(WIDTH, 1.2 + 0.26 * len(shares)))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.grid(visible=False)
    for (row, column), value in np.ndenumerate(shares.to_numpy()):
        if value >= SMALL:
            colour = "white" if value > 60 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(shares.columns)), shares.columns, rotation=45, ha="right")
    axes.set_yticks(range(len(shares)), shares.index)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def training_curves(curves: dict[str, pd.DataFrame]) -> Figure:
    """Loss and batch accuracy over epochs by label, of columns epoch, loss and acc."""
    from matplotlib.ticker import MaxNLocator

    space = {"wspace": 0.3, "left": 0.08, "right": 0.99}
    figure, both = subplots(1, 2, figsize=(WIDTH, 2.8), gridspec_kw=space)
    names = (("loss", "loss"), ("acc", "batch accuracy, percent"))
    for axes, (column, name) in zip(both, names, strict=True):
        for label, curve in curves.items():
            axes.plot(curve["epoch"], curve[column], label=label)
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.05)}
    figure.legend(*both[0].get_legend_handles_labels(), **below, ncols=3, frameon=False)
    return figure
