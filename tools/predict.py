r"""Classify pictures with a trained run: class, probability, and where the spotlight fell.

Each picture is a row of CSV or a line of JSON, in the order given. Unreadable files are reported on
stderr and skipped. Exit code: 0, 1 if no picture could be read, 2 for a mistake in the command.

Usage:
    python tools/predict.py --model-dir output/my_run --images a.jpg b.jpg
    python tools/predict.py --model-dir output/my_run --images holiday/ --topk 3 \
        --spotlight holiday_spotlight --format jsonl --output holiday.jsonl
    find . -name '*.png' | python tools/predict.py --model-dir output/my_run --images - \
        --classes names.txt --new inherit
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TextIO

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/predict.py`
from datasets.pictures import SUFFIXES, TURNED, find, shown, what_is_left
from inference.predictor import SpotlighterPredictor
from runs.data import prefetch
from runs.errors import sentence
from runs.quiet import quiet
from tools.shared.command_line import parser_of, reports_user_errors, whole
from tools.shared.prediction_rows import WRITERS
from tools.shared.run_arguments import add_run_arguments, read_class_list


class Read(NamedTuple):
    """A batch of pictures as far as they could be read."""

    paths: list[Path]
    pictures: list[Image.Image]
    faults: list[str]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    add_run_arguments(parser)
    add = parser.add_argument
    add(
        *("--images", "-i"),
        nargs="+",
        required=True,
        metavar="PATH",
        help="files, folders (with all below them), or - for paths on stdin, one a line",
    )
    add("--topk", type=whole(1), default=1, help="classes to print per picture (default 1)")
    add("--batch-size", type=whole(1), default=32, help="pictures at a time (default 32)")
    add("--format", choices=WRITERS, default="csv", help="form of the rows (default csv)")
    add("--output", type=Path, metavar="FILE", help="where the rows go (default stdout)")
    add("--spotlight", type=Path, metavar="DIR", help="draw the kept patches of each picture there")
    return parser.parse_args(argv)


def find_pictures(given: Sequence[str]) -> list[Path]:
    """The files that are named; of a folder all pictures in it and below, sorted.

    Raises:
        ValueError: a folder holds no picture, or nothing is named.
    """
    found: list[Path] = []
    for text in given:
        path = Path(text)
        if text == "-":
            found += [Path(line) for line in map(str.strip, sys.stdin) if line]
        elif path.is_dir():
            inside = find(path)
            if not inside.pictures:
                kinds = ", ".join(SUFFIXES)
                raise ValueError(f"the folder {path} holds no picture ({kinds})")
            found += inside.pictures
            tell_left_out(path, inside.others)
        else:
            found.append(path)
    if not found:
        raise ValueError("no picture is named (--images)")
    return found


def tell_left_out(folder: Path, others: Sequence[Path]) -> None:
    """Say what a folder holds beside pictures."""
    if others:
        what = what_is_left("files of another kind", others)
        sys.stderr.write(f"predict: left out in {shown(folder)}: {what}\n")


def read_batches(
    predictor: SpotlighterPredictor, paths: Sequence[Path], batch_size: int
) -> Iterator[Read]:
    """Open pictures, so many at a time."""
    for first in range(0, len(paths), batch_size):
        batch = Read([], [], [])
        for path in paths[first : first + batch_size]:
            try:
                batch.pictures.append(predictor.open(path))
                batch.paths.append(path)
            except (OSError, ValueError) as error:
                batch.faults.append(sentence(error))
        yield batch


def opened(path: Path) -> TextIO:
    """A new file for rows; names that are no UTF-8 are escaped in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="")


def predict_all(args: argparse.Namespace, predictor: SpotlighterPredictor) -> int:
    """Classify and write all pictures; returns how many there were to read."""
    paths, done, turned = find_pictures(args.images), 0, Counter[str]()
    console = Console(stderr=True, soft_wrap=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left"))
    with ExitStack() as stack:
        out = sys.stdout
        if args.output is not None:
            out = stack.enter_context(opened(args.output))
        write = WRITERS[args.format](out, args.topk, predictor)
        draw = None
        if args.spotlight is not None:
            from inference.overlays import Overlays

            draw = Overlays(args.spotlight, predictor)
        bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        task = stack.enter_context(bar).add_task("", total=len(paths))
        for batch in prefetch(read_batches(predictor, paths, args.batch_size)):
            for fault in batch.faults:
                console.print(f"predict: skipped: {fault}", markup=False, highlight=False)
            found = predictor.predict(batch.pictures, topk=args.topk, batch_size=args.batch_size)
            for path, picture, one in zip(batch.paths, batch.pictures, found, strict=True):
                write(path, one, None if draw is None else draw(path, picture, one))
            turned.update(picture.info.get(TURNED, "") for picture in batch.pictures)
            out.flush()
            done += len(found)
            bar.advance(task, len(found) + len(batch.faults))
    if count := turned["upright"] + turned["stored"]:
        done_to = "turned upright" if turned["upright"] else "read as stored (INPUT.EXIF stored)"
        console.print(f"predict: pictures with an EXIF rotation flag: {count}, {done_to}")
    if done < len(paths):
        console.print(f"predict: {len(paths) - done} of {len(paths)} files were skipped")
    return done


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Predict; a mistake of the user's ends in one sentence and exit code 2."""
    args = parse_args(argv)
    with quiet("dassl", "trainers", "runs"):
        predictor = SpotlighterPredictor.from_run(
            args.model_dir, read_class_list(args.classes), new=args.new, root=args.root
        )
        if args.spotlight is not None and predictor.num_patches is None:
            raise ValueError(
                f"{args.model_dir} is a run of a trainer that selects no patches; leave out "
                "--spotlight, or take a run of Spotlighter"
            )
        return 0 if predict_all(args, predictor) else 1


if __name__ == "__main__":
    sys.exit(main())
