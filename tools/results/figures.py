"""Figures of the page, as pictures inside it. Widths suit a phone: about 6 inches, 9 pt."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from runs.figure_style import plt, save
from tools.results.tables import HEADINGS

WIDTH = 6.2  # inches
SMALL = 5  # percent; smaller shares are not written into a confusion matrix
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.hashsalt": "report",  # equal results give equal bytes
    "svg.fonttype": "none",  # letters, not their outlines: a fifth of the size
}
TWENTY = plt.get_cmap("tab20").colors
COLOURS = (*TWENTY[::2], *TWENTY[1::2])  # the strong ones first
SCORE_COLOURS = {"base": "#4c78a8", "new": "#f58518", "hm_mean": "#54a24b", "all": "#4c78a8"}


class Picture(NamedTuple):
    """Something to look at."""

    source: str
    """A data URI."""
    text: str
    """What it shows; caption and alternative text."""


def embed(figure: Figure, text: str) -> Picture:
    """Close a figure; what is left of it is an SVG in a data URI."""
    buffer = io.BytesIO()
    with plt.rc_context(STYLE):
        save(figure, buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    return Picture(data_uri("svg+xml", buffer.getvalue()), text)


def data_uri(kind: str, content: bytes) -> str:
    """A picture as an address that needs no network."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def deviations(summary: pd.DataFrame, score: str) -> np.ndarray:
    """Standard deviations of a score over seeds; 0 where there are none."""
    found = summary.get(f"{score}_std", pd.Series(0.0, summary.index))
    return found.fillna(0.0).to_numpy(float)


def bars(summary: pd.DataFrame, scores: Sequence[str], title: str) -> Picture:
    """Horizontal bars with error bars: a group a row of the summary, a bar a score."""
    with plt.rc_context(STYLE):
        rows, thick = len(summary), 0.8 / len(scores)
        size = (WIDTH, 0.9 + 0.17 * rows * (len(scores) + 1))
        figure, axes = plt.subplots(figsize=size)
        place = np.arange(rows)
        for i, score in enumerate(scores):
            axes.barh(
                place + (i - (len(scores) - 1) / 2) * thick,
                summary[score].to_numpy(float),
                thick,
                xerr=deviations(summary, score),
                error_kw={"elinewidth": 1},
                color=SCORE_COLOURS[score],
                label=HEADINGS.get(score, score),
            )
        axes.set_yticks(place, summary["label"])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("accuracy, percent; mean and standard deviation over seeds")
        if len(scores) > 1:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    return embed(figure, title)


def shot_curves(summary: pd.DataFrame, title: str) -> Picture:
    """Accuracy over shots with error bars, a line a label; zero-shot at 0."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 3.6))
        shots = sorted(summary["shots"].unique())
        for i, (label, rows) in enumerate(summary.groupby("label", sort=False)):
            ordered = rows.sort_values("shots")
            axes.errorbar(
                [shots.index(value) for value in ordered["shots"]],
                ordered["all"].to_numpy(float),
                deviations(ordered, "all"),
                color=COLOURS[i % len(COLOURS)],
                marker="o",
                capsize=3,
                label=label,
            )
        axes.set_xticks(range(len(shots)), shots)
        axes.set_xlabel("training pictures a class")
        axes.set_ylabel("accuracy, percent")
        axes.legend(frameon=False, fontsize=8)
    return embed(figure, title)


def radar(summary: pd.DataFrame, score: str, title: str) -> Picture:
    """One axis a data set, one line a label; a line breaks where a score is missing."""
    table = summary.pivot_table(index="label", columns="dataset", values=score, sort=False)
    angles = np.linspace(0, 2 * np.pi, len(table.columns), endpoint=False)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, WIDTH), subplot_kw={"projection": "polar"})
        for i, (label, row) in enumerate(table.iterrows()):
            values = row.to_numpy(float)
            closed = np.append(values, values[0])
            axes.plot(np.append(angles, 0), closed, color=COLOURS[i % len(COLOURS)], label=label)
        axes.set_xticks(angles, table.columns)
        for label, side in zip(axes.get_xticklabels(), np.cos(angles), strict=True):
            label.set_horizontalalignment(
                "left" if side > 0.1 else "right" if side < -0.1 else "center"
            )
        low, high = np.nanmin(table.to_numpy(float)), np.nanmax(table.to_numpy(float))
        axes.set_ylim(max(0.0, low - 0.3 * (high - low + 1)), high)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
    return embed(figure, title)


def confusion_matrix(shares: pd.DataFrame, title: str) -> Picture:
    """Shares in percent of each true class (row) that were taken for each class (column)."""
    with plt.rc_context(STYLE | {"axes.grid": False}):
        rows, columns = shares.shape
        figure, axes = plt.subplots(figsize=(WIDTH, 1.2 + 0.26 * rows))
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for row in range(rows):
            for column in range(columns):
                value = shares.iat[row, column]
                if value >= SMALL:
                    dark = "white" if value > 60 else "black"
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=dark)
        axes.set_xticks(range(columns), shares.columns, rotation=45, ha="right")
        axes.set_yticks(range(rows), shares.index)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
    return embed(figure, title)


def training_curves(curves: dict[str, pd.DataFrame], title: str) -> Picture:
    """Loss and batch accuracy over epochs, a line a label.

    Args:
        curves: columns epoch, loss and acc by label.
        title: of the figure.
    """
    with plt.rc_context(STYLE):
        space = {"wspace": 0.3, "left": 0.08, "right": 0.99}
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.8), gridspec_kw=space)
        for i, (label, curve) in enumerate(curves.items()):
            for axes, name in ((left, "loss"), (right, "acc")):
                colour = COLOURS[i % len(COLOURS)]
                axes.plot(curve["epoch"], curve[name], color=colour, label=label)
        left.set_ylabel("loss")
        right.set_ylabel("batch accuracy, percent")
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="upper center",
            bbox_to_anchor=(0.5, -0.05),
            ncols=3,
            frameon=False,
        )
    return embed(figure, title)
