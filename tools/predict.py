r"""Classify pictures with a trained run: class, probability, kept patches.

Each picture is a row of CSV or a line of JSON, in the order given. Unreadable files are reported on
stderr and skipped. Exit code: 0, 1 if no picture could be read, 2 for a mistake in the command.

Usage:
    python tools/predict.py --model-dir output/my_run --images a.jpg b.jpg
    python tools/predict.py --model-dir output/my_run --images holiday/ --topk 3 \
        --spotlight holiday_spotlight --format jsonl --output holiday.jsonl
    find . -name '*.png' | python tools/predict.py --model-dir output/my_run --images - \
        --classes names.txt --new inherit
    python tools/predict.py --model-dir output/my_run --images holiday/ --threshold 0.5
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/predict.py`
from datasets.pictures import SUFFIXES, TURNED, find, shown, what_is_left
from runs.errors import sentence
from runs.logs import quiet
from tools.shared.command_line import parser_of, probability, reports_user_errors, whole
from tools.shared.run_arguments import add_run_arguments, read_class_list

if TYPE_CHECKING:
    from inference.predictor import Prediction, SpotlighterPredictor

    Write = Callable[[Path, Prediction, Path | None], None]  # picture, what was found, overlay


def csv_writer(
    out: TextIO, topk: int, predictor: SpotlighterPredictor, *, marks_unsure: bool = False
) -> Write:
    """Columns: path, class, probability, class_2, probability_2, ..., kept_patches, spotlight.

    `marks_unsure` adds a last one, "unsure" where a prediction is that. Kept patches have spaces
    between; a cell that a spreadsheet would run gets an apostrophe.
    """
    from runs.record import csv_cell

    writer = csv.writer(out, lineterminator="\n")
    ranks = range(2, 1 + min(topk, len(predictor.class_names)))
    more = [f"{column}_{rank}" for rank in ranks for column in ("class", "probability")]
    last = ["unsure"] * marks_unsure
    writer.writerow(["path", "class", "probability", *more, "kept_patches", "spotlight", *last])

    def write(path: Path, found: Prediction, overlay: Path | None) -> None:
        cells = [cell for name, p in found.top for cell in (name, f"{p:.6f}")]
        kept = " ".join(map(str, found.keep_indices or ()))
        marks = ["unsure" if found.unsure else ""] * marks_unsure
        writer.writerow(map(csv_cell, (str(path), *cells, kept, str(overlay or ""), *marks)))

    return write


def json_writer(
    out: TextIO, topk: int, predictor: SpotlighterPredictor, *, marks_unsure: bool = False
) -> Write:
    """An object a line: path, class, probability, top, and kept_patches, spotlight if there are.

    `marks_unsure` adds unsure, true or false.
    """

    def write(path: Path, found: Prediction, overlay: Path | None) -> None:
        top = [{"class": name, "probability": round(p, 6)} for name, p in found.top]
        row: dict[str, object] = {"path": str(path), **top[0], "top": top}
        if found.keep_indices is not None:
            row["kept_patches"] = found.keep_indices
        if overlay is not None:
            row["spotlight"] = str(overlay)
        if marks_unsure:
            row["unsure"] = found.unsure
        out.write(json.dumps(row, ensure_ascii=False) + "\n")

    return write


WRITERS = {"csv": csv_writer, "jsonl": json_writer}


def find_pictures(given: Sequence[str]) -> list[Path]:
    """Return the files that are named; of a folder all pictures in it and below, sorted."""
    found: list[Path] = []
    for text in given:
        path = Path(text)
        if text == "-":
            found += [Path(line) for line in map(str.strip, sys.stdin) if line]
        elif not path.is_dir():
            found.append(path)
        else:
            inside = find(path)
            others = what_is_left("files of another kind", inside.others) if inside.others else ""
            if not inside.pictures:
                which = f"{', '.join(SUFFIXES)}{'; left out: ' * bool(others)}{others}"
                raise ValueError(f"the folder {shown(path)} holds no picture ({which})")
            found += inside.pictures
            if others:
                sys.stderr.write(f"predict: left out in {shown(path)}: {others}\n")
    if not found:
        raise ValueError("no picture is named (--images)")
    return found


def read_batches(
    predictor: SpotlighterPredictor, paths: Sequence[Path], size: int
) -> Iterator[tuple[list[tuple[Path, Image.Image]], list[str]]]:
    """Read `size` files at a time: paths with their pictures, and what is wrong with the others."""
    for first in range(0, len(paths), size):
        pictures, problems = [], []
        for path in paths[first : first + size]:
            try:
                pictures.append((path, predictor.open(path)))
            except (OSError, ValueError) as error:
                problems.append(sentence(error))
        yield pictures, problems


def print_counts(console: Console, counts: Counter[str], threshold: float | None) -> None:
    """Say how many pictures were turned, are unsure, and were skipped."""
    done, skipped = counts["read"], counts["skipped"]
    if count := counts["upright"] + counts["stored"]:
        how = "turned upright" if counts["upright"] else "read as stored (INPUT.EXIF stored)"
        console.print(f"predict: pictures with an EXIF rotation flag: {count}, {how}")
    if threshold is not None:
        below = f"their top probability is below {threshold:g}"
        console.print(f"predict: {counts['unsure']} of {done} pictures are unsure: {below}")
    if skipped:
        console.print(f"predict: {skipped} of {done + skipped} files were skipped")


def predict_all(args: argparse.Namespace, predictor: SpotlighterPredictor) -> int:
    """Classify all pictures and write the rows; returns how many could be read."""
    from runs.data import prefetch

    paths, done, counts = find_pictures(args.images), 0, Counter[str]()
    options = {"topk": args.topk, "batch_size": args.batch_size, "threshold": args.threshold or 0.0}
    console = Console(stderr=True, soft_wrap=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left"))
    with ExitStack() as stack:
        out, draw = sys.stdout, None
        if args.output is not None:
            args.output.parent.mkdir(parents=True, exist_ok=True)
            # Bytes of a file's name that are no UTF-8 are escaped.
            form = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
            out = stack.enter_context(args.output.open("w", **form))
        mark = args.threshold is not None
        write = WRITERS[args.format](out, args.topk, predictor, marks_unsure=mark)
        if args.spotlight is not None:
            from inference.overlays import Overlays

            draw = Overlays(args.spotlight, predictor)
        bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        task = stack.enter_context(bar).add_task("", total=len(paths))
        for read, problems in prefetch(read_batches(predictor, paths, args.batch_size)):
            for problem in problems:
                console.print(f"predict: skipped: {problem}", markup=False, highlight=False)
            pictures = [picture for _, picture in read]
            found = predictor.predict(pictures, **options)
            for (path, picture), one in zip(read, found, strict=True):
                write(path, one, None if draw is None else draw(path, picture, one))
                counts[picture.info.get(TURNED, "")] += 1
                counts["unsure"] += one.unsure
            out.flush()
            done += len(read)
            bar.advance(task, len(read) + len(problems))
    counts.update(read=done, skipped=len(paths) - done)
    print_counts(console, counts, args.threshold)
    return done


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Predict; returns 1 if no picture could be read."""
    parser = parser_of(__doc__)
    add_run_arguments(parser)
    add = parser.add_argument
    paths = "files, folders (with all below them), or - for paths on stdin, one a line"
    add("--images", "-i", nargs="+", required=True, metavar="PATH", help=paths)
    add("--topk", type=whole(1), default=1, help="classes to print per picture (default 1)")
    add("--batch-size", type=whole(1), default=32, help="pictures at a time (default 32)")
    add("--format", choices=WRITERS, default="csv", help="form of the rows (default csv)")
    unsure = "mark a picture as unsure whose top probability, in 0..1, is below P"
    add("--threshold", type=probability, metavar="P", help=unsure)
    add("--output", type=Path, metavar="FILE", help="where the rows go (default stdout)")
    add("--spotlight", type=Path, metavar="DIR", help="draw the kept patches of each picture there")
    args = parser.parse_args(argv)
    from inference.predictor import SpotlighterPredictor

    with quiet("dassl", "trainers", "runs"):
        names, run = read_class_list(args.classes), args.model_dir
        predictor = SpotlighterPredictor.from_run(run, names, new=args.new, root=args.root)
        if args.spotlight is not None and predictor.num_patches is None:
            raise ValueError(
                f"{args.model_dir} is a run of a trainer that selects no patches; leave out "
                "--spotlight, or take a run of Spotlighter"
            )
        return 0 if predict_all(args, predictor) else 1


if __name__ == "__main__":
    sys.exit(main())
