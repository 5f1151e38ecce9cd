"""Draw both activation maps and the kept patches of some pictures.

Usage:
    python tools/visualise.py --model-dir output/my_run --output spotlight.png
    python tools/visualise.py --model-dir output/my_run --images cat.jpg dog.jpg

OUTPUT_prototypes.png, beside OUTPUT, shows the training patch that is nearest to each prototype,
for the classes of the pictures; for those of --images, the predicted classes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/visualise.py`
from tools.shared.command_line import parser_of, reports_user_errors, whole

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer


def open_spotlighter(model_dir: str | Path, root: str) -> CLIPTrainer:
    """Open a run with its data set; a ValueError says that its trainer selects no patches."""
    from inference.open import open_run

    trainer = open_run(model_dir, root)
    if trainer.model.head is None:
        raise ValueError(
            f"{model_dir} is a run of {trainer.cfg.TRAINER.NAME}; only runs of Spotlighter keep "
            "patches that can be drawn"
        )
    return trainer


def choose_pictures(trainer: CLIPTrainer, number: int) -> list[tuple[str, str]]:
    """Return paths and class names of test pictures, of `number` classes that spread evenly."""
    from runs.draw import one_a_class

    return [(item.impath, item.classname) for item in one_a_class(trainer.dm.dataset.test, number)]


def draw(
    trainer: CLIPTrainer, chosen: Sequence[tuple[str, str]], to: Path | IO[bytes], **options: Any
) -> list[str]:
    """Write a row for each path and class ("": unknown) in `chosen`; return the predicted names."""
    from datasets.pictures import open_picture
    from inference.overlays import draw_row, in_words, name_maps
    from inference.predictor import SpotlighterPredictor
    from runs.data import upright
    from runs.figure_style import plt, save

    predictor = SpotlighterPredictor(trainer)
    pictures = [open_picture(path, upright(trainer.cfg)) for path, _ in chosen]
    found = predictor.predict(pictures, topk=1)
    size = (7.6, 2.12 * len(pictures) + 0.2)
    figure, grid = plt.subplots(len(pictures), 4, figsize=size, squeeze=False)
    for row, picture, one, (_, true) in zip(grid, pictures, found, chosen, strict=True):
        draw_row(row, predictor, picture, one)
        row[0].set_title(true or "picture", fontsize=8, loc="left")
        said = in_words(one.class_name, one.probability)
        colour = "black" if not true else "#060" if one.class_name == true else "#b00"
        row[3].set_title(said, fontsize=8, loc="left", color=colour)
    name_maps(grid, size=8)
    title = f"kept patches by rank, level 1 yellow (1-{predictor.level1}), level 2 blue"
    figure.suptitle(f"{trainer.state.label}: {title}", fontsize=9)
    save(figure, to, tight=(0, 0, 1, 0.985), dpi=130, **options)
    return [one.class_name for one in found]


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Draw pictures and prototypes."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--model-dir", required=True, help="output folder of a Spotlighter run")
    add("--images", nargs="+", default=[], help="picture files (default: test pictures)")
    add("--number", type=whole(1), default=6, help="test pictures to draw (default 6)")
    add("--root", default="", help="folder of all data sets, if it moved")
    add("--output", type=Path, default=Path("output/spotlight.png"), help="(%(default)s)")
    args = parser.parse_args(argv)
    trainer, output = open_spotlighter(args.model_dir, args.root), args.output
    chosen = [(path, "") for path in args.images] or choose_pictures(trainer, args.number)
    output.parent.mkdir(parents=True, exist_ok=True)
    predicted = draw(trainer, chosen, output)
    prototypes = output.with_name(f"{output.stem}_prototypes{output.suffix}")
    shown = dict.fromkeys(true or name for (_, true), name in zip(chosen, predicted, strict=True))
    known = [name for name in shown if name in trainer.model.head.memory.class_names]
    if known:
        from inference.overlays import draw_prototypes

        draw_prototypes(trainer, known, prototypes)
    print(f"Drawn: {output} and {prototypes.name}" if known else f"Drawn: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
