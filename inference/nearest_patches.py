"""What the prototypes stand for: the kept training patches that are nearest to each of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from inference.overlays import analyse
from runs.draw import to_pixels
from runs.figure_style import plt, save
from trainers.base import CLIPTrainer

SLOTS = 5  # of a class that are drawn, those with most evidence


class Kept(NamedTuple):
    """Kept patches of the training pictures of one class."""

    pixels: Tensor
    """(N, 3, H, W), normalised."""
    tokens: Tensor
    """(N, K, D), in the space of patches."""
    indices: Tensor
    """(N, K), positions in the picture."""


def kept_patches(trainer: CLIPTrainer, class_name: str) -> Kept:
    """What is kept of the training pictures of a class, prepared as at test."""
    paths = [x.impath for x in trainer.dm.dataset.train_x if x.classname == class_name]
    images, out = analyse(trainer, paths)
    selection = out.head.selection
    tokens = trainer.model.head.memory.patch_space(selection.tokens)
    return Kept(images, tokens.cpu(), selection.indices.cpu())


def nearest(kept: Kept, slots: Tensor) -> list[tuple[int, int, float]]:
    """For each slot (M, D): picture, position of the patch there, and similarity."""
    similarity = kept.tokens.flatten(0, 1) @ slots.T  # (N * K, M)
    best = similarity.argmax(0)
    places = kept.indices.flatten()[best]
    pictures = best // kept.indices.shape[1]
    values = similarity.amax(0)
    return list(zip(pictures.tolist(), places.tolist(), values.tolist(), strict=True))


def crop(pixels: Tensor, place: int, size: int) -> Tensor:
    """A patch of `pixels` (H, W, 3) with half a patch of its surroundings."""
    grid, margin = pixels.shape[0] // size, size // 2
    y, x = place // grid * size, place % grid * size
    top, left = max(0, y - margin), max(0, x - margin)
    return pixels[top : y + size + margin, left : x + size + margin]


def draw_prototypes(trainer: CLIPTrainer, class_names: list[str], output: Path) -> None:
    """Write one PNG: a row a class, a column a prototype.

    Args:
        trainer: of a Spotlighter run, in evaluation mode.
        class_names: classes that the bank knows.
        output: the file.
    """
    cfg, memory = trainer.cfg.INPUT, trainer.model.head.memory
    size = trainer.model.base.visual.visual.conv1.kernel_size[0]
    columns = min(SLOTS, memory.mass.shape[1])
    figure, grid = plt.subplots(
        len(class_names),
        columns,
        figsize=(1.5 * columns, 1.75 * len(class_names)),
        squeeze=False,
    )
    for row, name in zip(grid, class_names, strict=True):
        c = memory.class_names.index(name)
        slots = memory.patch_space(memory.prototypes[c, :columns]).cpu()
        kept = kept_patches(trainer, name)
        pixels = to_pixels(kept.pixels, cfg.PIXEL_MEAN, cfg.PIXEL_STD)
        for m, (axes, (picture, place, value)) in enumerate(
            zip(row, nearest(kept, slots), strict=True)
        ):
            axes.imshow(crop(pixels[picture], place, size))
            axes.set_title(f"{memory.mass[c, m]:.0f} patches, {value:.2f}", fontsize=7)
            axes.set_xticks([])
            axes.set_yticks([])
        row[0].set_ylabel(name, fontsize=8)
    figure.suptitle("Nearest training patch of each prototype: evidence, similarity", fontsize=9)
    save(figure, output, tight=(0, 0, 1, 0.98), dpi=130)
