"""One PNG a picture: the picture as the model sees it, and the patches that it kept."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from datasets.pictures import shown
from models.predictor import Prediction, SpotlighterPredictor
from tools.figure_style import plt, save
from tools.visualise import draw_kept, ranks_by_colour

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
