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

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/visualise.py`
import datasets  # noqa: F401  (registers the data sets)
from inference.nearest_patches import draw_prototypes
from inference.open import open_run
from inference.overlays import analyse, draw_kept, draw_map
from models.spotlighter.select import whole_map
from runs.draw import one_a_class, to_pixels
from runs.figure_style import plt, save
from tools.shared.command_line import parser_of, reports_user_errors, whole
from trainers.base import CLIPTrainer

COLUMNS = ("picture", "sample-wise", "semantic-wise", "kept patches")


def choose_pictures(trainer: CLIPTrainer, number: int) -> list[tuple[str, str]]:
    """Test pictures of `number` classes, evenly spread: (path, class name)."""
    chosen = one_a_class(trainer.dm.dataset.test, number)
    return [(item.impath, item.classname) for item in chosen]


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
    if trainer.model.head is None:
        name = trainer.cfg.TRAINER.NAME
        raise ValueError(f"{args.model_dir} is a run of {name}, which selects no patches")
    pictures = [(path, "") for path in args.images] or choose_pictures(trainer, args.number)
    draw(trainer, pictures, args.output)
    print(f"Drawn: {args.output} and {beside(args.output).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
