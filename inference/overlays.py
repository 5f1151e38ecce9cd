"""Figures of score maps, kept patches, and the training patches nearest to the prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from datasets.pictures import open_picture, shown
from inference.predictor import Prediction, SpotlighterPredictor
from runs.data import upright
from runs.draw import LEVEL_COLOURS, boxes, darken
from runs.figure_style import plt, save

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer

INCHES = 2.6  # of a panel
LARGE = 8  # patches in a row, at most, where a rank has room in its patch
LONGEST = 22  # letters of a class name in a title
SLOTS = 5  # prototypes of a class that are drawn, those with most evidence
MAPS = {"sample-wise": "relevance to the picture", "semantic-wise": "relevance to the class names"}


def draw_map(axes: Axes, pixels: Tensor, score: Tensor) -> None:
    """A picture in grey with a score (N,) of its patches over it; nothing where it is nan."""
    side, grid = pixels.shape[0], round(len(score) ** 0.5)
    axes.imshow(pixels.mean(-1), cmap="gray", vmin=0, vmax=1)
    extent = (-0.5, side - 0.5, side - 0.5, -0.5)
    axes.imshow(score.view(grid, grid), cmap="inferno", alpha=0.65, extent=extent)


def draw_kept(
    axes: Axes, pixels: Tensor, kept: Sequence[int], num_patches: int, level1: int
) -> None:
    """The picture, dark except in its kept patches, which are framed by level and numbered."""
    grid = round(num_patches**0.5)
    axes.imshow(darken(np.asarray(pixels), kept, grid))
    for rank, (left, top, right, bottom) in enumerate(boxes(kept, len(pixels), grid), 1):
        width, height, colour = right - left, bottom - top, LEVEL_COLOURS[rank > level1]
        corner = (left - 0.5, top - 0.5)
        axes.add_patch(Rectangle(corner, width, height, fill=False, lw=1.6, edgecolor=colour))
        y, across = top + 0.36 * height, "baseline"
        if grid > LARGE:  # above the patch, or below it where nothing is above
            y, across = (bottom, "top") if top < height else (top, "bottom")
        points = 8 if grid <= LARGE else 6
        style: dict[str, Any] = {"color": colour, "fontsize": points, "va": across}
        label = axes.text(left + 0.06 * width, y, str(rank), weight="bold", **style)
        label.set_path_effects([withStroke(linewidth=2, foreground="black")])


def draw_row(
    row: Sequence[Axes], predictor: SpotlighterPredictor, picture: Image.Image, found: Prediction
) -> None:
    """A picture as the model sees it, its maps if there are four axes, its kept patches."""
    pixels = predictor.seen(picture)
    row[0].imshow(pixels)
    for axes, score in zip(row[1:-1], (found.sample_wise, found.semantic_wise), strict=False):
        assert score is not None
        draw_map(axes, pixels, score)
    num_patches, level1 = predictor.num_patches or 0, predictor.level1 or 0
    draw_kept(row[-1], pixels, found.keep_indices or (), num_patches, level1)
    for axes in row:
        axes.set(xticks=(), yticks=())


def name_maps(grid: Sequence[Sequence[Axes]], size: int) -> None:
    """Name the maps above the first row of four axes; write what they show below the last."""
    for column, (name, meaning) in enumerate(MAPS.items(), 1):
        grid[0][column].set_title(name, fontsize=size)
        grid[-1][column].set_xlabel(meaning, fontsize=size)


def in_words(name: str, probability: float) -> str:
    """What is said of a picture, as "cat 87 %"; of a long name the end is cut, not the number."""
    short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\u2026"
    return f"{short} {100 * probability:.0f} %"


def ranks_by_colour(predictor: SpotlighterPredictor, found: Prediction) -> str:
    """Which ranks are drawn in which colour, as "1-3 yellow, 4-5 blue"."""
    number, level1 = len(found.keep_indices or ()), predictor.level1 or 0
    level2 = f", {level1 + 1}-{number} blue" if number > level1 else ""
    return f"1-{level1} yellow{level2}"


class Overlays:
    """Draws pictures and their kept patches into a folder, as PNGs named after the pictures."""

    def __init__(self, folder: Path, predictor: SpotlighterPredictor) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.predictor, self.used = folder, predictor, set[str]()

    def __call__(self, path: Path, picture: Image.Image, found: Prediction) -> Path:
        """Draw a picture; returns the file, named after it (`_2` if another has the name)."""
        name, number = path.stem, 2
        while name.casefold() in self.used:
            name, number = f"{path.stem}_{number}", number + 1
        self.used.add(name.casefold())
        output = self.folder / f"{name}.png"
        figure, row = plt.subplots(1, 2, figsize=(2 * INCHES, INCHES + 0.6))
        draw_row(row, self.predictor, picture, found)
        row[0].set_title(in_words(found.class_name, found.probability), fontsize=9)
        row[1].set_title("kept patches", fontsize=9)
        text = f"{shown(path.name)}; kept patches by rank: {ranks_by_colour(self.predictor, found)}"
        figure.text(0.5, 0.02, text, ha="center", fontsize=7)
        save(figure, output, tight=(0, 0.05, 1, 1), dpi=130)
        return output


def nearest(tokens: Tensor, indices: Tensor, slots: Tensor) -> list[tuple[int, int, float]]:
    """For each slot (M, D) its nearest kept token (B, K, D): picture, place, similarity.

    All have unit length; `indices` (B, K) are the tokens' places in their pictures.
    """
    similarity = tokens.flatten(0, 1) @ slots.T  # (B * K, M)
    values, best = similarity.max(0)
    pictures, places = best // indices.shape[1], indices.flatten()[best]
    return list(zip(pictures.tolist(), places.tolist(), values.tolist(), strict=True))


def crop(pixels: Tensor, place: int, grid: int) -> Tensor:
    """A patch of `pixels` (H, H, 3) with half a patch of its surroundings."""
    [(left, top, right, bottom)] = boxes([place], len(pixels), grid)
    margin = (right - left) // 2
    return pixels[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin]


def draw_prototypes(trainer: CLIPTrainer, class_names: list[str], output: Path) -> None:
    """Write one PNG: a row a class that the bank knows, a column a prototype."""
    predictor, memory = SpotlighterPredictor(trainer), trainer.model.head.memory
    side = round((predictor.num_patches or 0) ** 0.5)
    columns = min(SLOTS, memory.mass.shape[1])
    size = (1.5 * columns, 1.75 * len(class_names))
    figure, grid = plt.subplots(len(class_names), columns, figsize=size, squeeze=False)
    for row, name in zip(grid, class_names, strict=True):
        items = [item for item in trainer.dm.dataset.train_x if item.classname == name]
        pictures = [open_picture(item.impath, upright(trainer.cfg)) for item in items]
        with torch.no_grad():
            chosen = trainer.model.forward_all(predictor.prepare(pictures)).head.selection
        c = memory.class_names.index(name)
        tokens, slots = map(memory.patch_space, (chosen.tokens, memory.prototypes[c, :columns]))
        found = nearest(tokens, chosen.indices, slots)
        for axes, mass, (picture, place, value) in zip(row, memory.mass[c], found, strict=False):
            axes.imshow(crop(predictor.seen(pictures[picture]), place, side))
            axes.set_title(f"{mass:.0f} patches, {value:.2f}", fontsize=7)
            axes.set(xticks=(), yticks=())
        row[0].set_ylabel(name, fontsize=8)
    figure.suptitle("Nearest training patch of each prototype: evidence, similarity", fontsize=9)
    save(figure, output, tight=(0, 0, 1, 0.98), dpi=130)
