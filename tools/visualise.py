"""Draw what Spotlighter looked at: both activation maps and the kept patches of some pictures.

Usage:
    python tools/visualise.py --model-dir output/my_run --output spotlight.png
    python tools/visualise.py --model-dir output/my_run --images cat.jpg dog.jpg

Beside OUTPUT stands OUTPUT_prototypes.png: for the classes of the pictures, or those that
were said, the training patches that are nearest to each prototype of the bank.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/visualise.py`
import datasets  # noqa: F401  (registers the data sets)
from models.token_selection import whole_map
from tools.command_line import parser_of, reports_user_errors, whole
from tools.figure_style import plt, save
from tools.looked_at import analyse
from tools.nearest_patches import draw_prototypes
from trainers.base import CLIPTrainer
from trainers.kept_picture import LEVEL_COLOURS, one_a_class, to_pixels
from trainers.open_run import open_run

COLUMNS = ("picture", "sample-wise", "semantic-wise", "kept patches")


def choose_pictures(trainer: CLIPTrainer, number: int) -> list[tuple[str, str]]:
    """Test pictures of `number` classes, evenly spread: (path, class name)."""
    chosen = one_a_class(trainer.dm.dataset.test, number)
    return [(item.impath, item.classname) for item in chosen]


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


def write_titles(row: Sequence[Axes], true: str, said: str, probability: float) -> None:
    """What a picture shows and what the model says of it; red where that is wrong."""
    row[0].set_title(true or "picture", fontsize=8, loc="left")
    colour = "#b00" if true and said != true else "#060"
    text = f"said: {said} {100 * probability:.0f} %"
    row[3].set_title(text, fontsize=8, loc="left", color=colour)


def draw(trainer: CLIPTrainer, pictures: Sequence[tuple[str, str]], output: Path) -> None:
    """Write one PNG: a row a picture."""
    images, out = analyse(trainer, [path for path, _ in pictures])
    pixels = to_pixels(images, trainer.cfg.INPUT.PIXEL_MEAN, trainer.cfg.INPUT.PIXEL_STD)
    level1 = trainer.model.head.options.level1
    num_patches = trainer.model.base.visual.num_patches
    sample, semantic = (
        whole_map(score, out.tokens.positions, num_patches)
        for score in (out.head.sample_wise, out.head.semantic_wise)
    )
    probability, best = out.logits.softmax(-1).max(-1)
    rows = len(pictures)
    figure, grid = plt.subplots(
        rows, len(COLUMNS), figsize=(1.9 * len(COLUMNS), 2.05 * rows), squeeze=False
    )
    for i, (row, (_, true)) in enumerate(zip(grid, pictures, strict=True)):
        row[0].imshow(pixels[i])
        draw_map(row[1], pixels[i], sample[i])
        draw_map(row[2], pixels[i], semantic[i])
        kept = out.head.selection.indices[i]
        draw_kept(row[3], pixels[i], kept, num_patches, level1)
        write_titles(row, true, trainer.class_names[int(best[i])], float(probability[i]))
    for axes, name in zip(grid[0][1:3], COLUMNS[1:3], strict=True):
        axes.set_title(name, fontsize=8)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    figure.suptitle(
        f"{trainer.cfg.DATASET.NAME}: kept patches by rank, "
        f"level 1 yellow (1-{level1}), level 2 blue",
        fontsize=9,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    save(figure, output, tight=(0, 0, 1, 0.985), dpi=130)
    draw_bank(trainer, pictures, best.tolist(), output)


def draw_bank(
    trainer: CLIPTrainer, pictures: Sequence[tuple[str, str]], best: Sequence[int], output: Path
) -> None:
    """Write the prototypes of the pictures' classes, or of those that were said."""
    known = set(trainer.model.head.memory.class_names)
    names = [true or trainer.class_names[i] for (_, true), i in zip(pictures, best, strict=True)]
    shown = [name for name in dict.fromkeys(names) if name in known]
    if shown:
        draw_prototypes(trainer, shown, beside(output))


def beside(output: Path) -> Path:
    """Where the picture of the prototypes goes."""
    return output.with_name(f"{output.stem}_prototypes{output.suffix}")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--model-dir", required=True, help="output folder of a Spotlighter run")
    parser.add_argument("--images", nargs="+", default=[], help="picture files (default: test)")
    parser.add_argument("--number", type=whole(1), default=6, help="test pictures to draw")
    parser.add_argument("--root", default="", help="folder of all data sets, if it moved")
    parser.add_argument("--output", type=Path, default=Path("output/spotlight.png"))
    return parser.parse_args(argv)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Draw; a mistake of the user's ends in one sentence and exit code 2."""
    args = parse_args(argv)
    trainer = open_run(args.model_dir, args.root)
    if not hasattr(trainer.model, "head"):
        name = trainer.cfg.TRAINER.NAME
        raise ValueError(f"{args.model_dir} is a run of {name}, which selects no patches")
    pictures = [(path, "") for path in args.images] or choose_pictures(trainer, args.number)
    draw(trainer, pictures, args.output)
    print(f"Drawn: {args.output} and {beside(args.output).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
