"""What the prototypes stand for: the kept training patch that is nearest to each of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from datasets.pictures import open_picture
from inference.predictor import SpotlighterPredictor
from runs.data import upright
from runs.draw import boxes
from runs.figure_style import plt, save
from trainers.base import CLIPTrainer

SLOTS = 5  # prototypes of a class that are drawn, those with most evidence


def nearest(tokens: Tensor, indices: Tensor, slots: Tensor) -> list[tuple[int, int, float]]:
    """For each slot (M, D) its nearest token: picture, place of the patch there, similarity.

    Args:
        tokens: (B, K, D) of the kept patches; unit length, as the slots.
        indices: (B, K), their places in the picture.
        slots: prototypes, in the space of patches.
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
