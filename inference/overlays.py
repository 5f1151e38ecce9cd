"""One PNG a picture: the picture as the model sees it, and the patches that it kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from dassl.data.transforms import build_transform
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from datasets.pictures import open_picture, shown
from inference.predictor import Prediction, SpotlighterPredictor
from models.spotlighter.model import SpotlightedOutput
from runs.data import upright
from runs.draw import LEVEL_COLOURS
from runs.figure_style import plt, save
from trainers.base import CLIPTrainer


def draw_map(axes: Axes, pixels: Tensor, score: Tensor) -> None:
    """A picture in grey with a score (N,) of its patches over it; nothing where it is nan."""
    side, grid = pixels.shape[0], round(len(score) ** 0.5)
    axes.imshow(pixels.mean(-1), cmap="gray", vmin=0, vmax=1)
    extent = (-0.5, side - 0.5, side - 0.5, -0.5)
    axes.imshow(score.view(grid, grid).cpu(), cmap="inferno", alpha=0.65, extent=extent)


def ranks_by_colour(number: int, level1: int) -> str:
    """Which of so many ranks are drawn in which colour, as "1-3 yellow, 4-5 blue"."""
    level2 = f", {level1 + 1}-{number} blue" if number > level1 else ""
    return f"1-{level1} yellow{level2}"


def draw_kept(axes: Axes, pixels: Tensor, kept: Tensor, num_patches: int, level1: int) -> None:
    """The picture, dark but for the kept patches (K,), which carry their ranks."""
    size = pixels.shape[0] // round(num_patches**0.5)
    grid = pixels.shape[0] // size
    axes.imshow(pixels * 0.35)
    for rank, index in enumerate(kept.tolist(), 1):
        y, x = index // grid * size, index % grid * size
        colour = LEVEL_COLOURS[rank > level1]
        patch = pixels[y : y + size, x : x + size]
        axes.imshow(patch, extent=(x - 0.5, x + size - 0.5, y + size - 0.5, y - 0.5))
        frame = Rectangle((x - 0.5, y - 0.5), size, size, fill=False, edgecolor=colour, lw=1.6)
        axes.add_patch(frame)
        label = axes.text(
            x + 0.06 * size, y + 0.36 * size, str(rank), color=colour, fontsize=8, weight="bold"
        )
        label.set_path_effects([withStroke(linewidth=2, foreground="black")])
    axes.set_xlim(-0.5, pixels.shape[0] - 0.5)
    axes.set_ylim(pixels.shape[0] - 0.5, -0.5)


@torch.no_grad()
def analyse(trainer: CLIPTrainer, paths: Sequence[str]) -> tuple[Tensor, SpotlightedOutput]:
    """Normalised pictures (B, 3, H, W), prepared as at test, and what the model says of them."""
    transform = build_transform(trainer.cfg, is_train=False)
    assert transform is not None
    turn = upright(trainer.cfg)
    images = torch.stack([transform(open_picture(path, turn)) for path in paths])
    return images, trainer.model.forward_all(images.to(trainer.device))


INCHES = 2.6  # of a panel


class Overlays:
    """Draws into a folder; files are named after the pictures, and no name is used twice."""

    def __init__(self, folder: Path, predictor: SpotlighterPredictor) -> None:
        """Make the folder.

        Args:
            folder: where the files go.
            predictor: of a model that selects patches.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.predictor = folder, predictor
        self.used: set[str] = set()

    def __call__(self, path: Path, picture: Image.Image, found: Prediction) -> Path:
        """Draw what was kept of a picture; returns the file."""
        output = self.folder / f"{self.unused(path.stem)}.png"
        pixels = self.predictor.seen(picture)
        figure, (plain, kept) = plt.subplots(1, 2, figsize=(2 * INCHES, INCHES + 0.6))
        plain.imshow(pixels)
        level1 = self.predictor.level1 or 0
        indices = torch.tensor(found.keep_indices)
        draw_kept(kept, pixels, indices, self.predictor.num_patches or 0, level1)
        plain.set_title(f"{found.class_name} {100 * found.probability:.0f} %", fontsize=9)
        kept.set_title("kept patches", fontsize=9)
        for axes in (plain, kept):
            axes.set_xticks([])
            axes.set_yticks([])
        text = f"{shown(path.name)}; kept patches by rank: {ranks_by_colour(len(indices), level1)}"
        figure.text(0.5, 0.02, text, ha="center", fontsize=7)
        save(figure, output, tight=(0, 0.05, 1, 1), dpi=130)
        return output

    def unused(self, stem: str) -> str:
        """The name, with a number behind it where another picture has it."""
        name, number = stem, 2
        while name.casefold() in self.used:
            name, number = f"{stem}_{number}", number + 1
        self.used.add(name.casefold())
        return name
