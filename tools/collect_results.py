"""Collect the results of runs into tables: mean, deviation and harmonic mean over seeds.

Usage:
    python tools/collect_results.py output
    python tools/collect_results.py output/base2new --published --markdown table.md --csv table.csv

Every results.json below ROOT is read, and every log.txt that has no results.json beside it; such
logs must lie in the folders that CoOp and its relatives write. Runs on base and on new classes are
paired by trainer, data set, config, settings, shots and seed. Runs of one config that differ in
settings, data or weights are rows of their own, and the column `settings` says what differs. Each
protocol has a table, best first; below it stands what each trainer knows of new classes. Training
is in processor seconds on a CPU, in seconds of the wall on a GPU, without evaluation.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/collect_results.py`
from tools.results import rows, tables
from tools.results.cells import csv_frame
from tools.results.read import CALIBRATION, EFFORT, MEASURES
from tools.results.rows import COLUMNS
from tools.results.terminal import NO_LIMIT, add_wide, leave_out, room, what_is_left_out
from tools.shared.command_line import parser_of, reports_user_errors


def text_of(section: rows.Section, published: bool, order: str = "best") -> pd.DataFrame:
    """Return the table of a section as strings, with the published figures if asked for."""
    summary = rows.with_average(section)
    if published and "hm" in section.scores:
        summary = tables.with_published(summary)
    summary = rows.order_rows(summary, order)
    return tables.by_shots(tables.to_text(summary), rows.labels(summary))


def write(path: Path, text: str) -> None:
    """Write a file, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def fitting(text: pd.DataFrame, title: str, width: int) -> list[Table | str]:
    """Return tables that are not cut, the whole one if it fits, and what they leave out.

    Else nll and ece have a table of their own, or two; a narrow terminal has fewer columns, whose
    headings and words go on in the next line.
    """
    console = Console(width=NO_LIMIT)

    def fits(shown: pd.DataFrame, heading: str = title, *, narrow: bool = False) -> bool:
        size = Measurement.get(console, console.options, tables.to_rich(shown, heading, narrow))
        return (size.minimum if narrow else size.maximum) <= width

    beside = [name for name in CALIBRATION if name in text]
    shown, names = text if fits(text) else text.drop(columns=beside), []
    if narrow := not fits(shown):
        few = [name for name in text if name.endswith((" shot", " shots"))]
        optional = (*EFFORT, "hm_mean", "seeds", *few[1:-1])
        shown, names = leave_out(shown, optional, partial(fits, narrow=True))
    found: list[Table | str] = [tables.to_rich(shown, title, narrow)]
    if beside and beside[0] not in shown:
        words, heading = text.loc[:, :"seeds"], f"{title}: probabilities"
        parts = [[name for name in beside if name.startswith(measure)] for measure in MEASURES]
        parts = [beside] if fits(words.join(text[beside]), heading) else parts
        found += [tables.to_rich(words.join(text[n]), heading, narrow) for n in parts if n]
    if names:
        found.append(what_is_left_out([tables.HEADINGS.get(name, name) for name in names]))
    return found


def show(texts: dict[str, pd.DataFrame], *, published: bool, wide: bool = False) -> None:
    """Print tables by title, each with what its trainers know of new classes."""
    width = room(wide=wide)
    console = Console(width=width)
    for title, text in texts.items():
        console.print(*fitting(text, title, width), highlight=False)
        if note := tables.new_classes(text):
            console.print(note, markup=False, highlight=False)
    if published:
        console.print(tables.published_table())


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the tables; returns 1 if nothing was found."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("root", type=Path, help="folder below which results are looked for")
    add("--csv", type=Path, help="write one row for each seed to this file")
    names = {"nargs": "+", "metavar": "NAME", "choices": COLUMNS, "default": COLUMNS}
    add("--columns", **names, help=f"columns of the CSV, out of {', '.join(COLUMNS)}")
    add("--markdown", type=Path, help="write the tables to this file")
    add("--latex", type=Path, help="write the tables as LaTeX, for the package booktabs")
    add("--published", action="store_true", help="add the published figures of the literature")
    add("--order", choices=rows.ORDERS, default="best", help=f"of rows: {rows.IN_WORDS}")
    add_wide(parser)
    args = parser.parse_args(arguments)
    runs = rows.load_runs(args.root)
    if not runs:
        print(f"no results below {args.root}", file=sys.stderr)
        return 1
    seeds = rows.pair_runs(runs)
    texts = {s.title: text_of(s, args.published, args.order) for s in rows.split_sections(seeds)}
    show(texts, published=args.published, wide=args.wide)
    for path, form in ((args.markdown, tables.to_markdown), (args.latex, tables.to_latex)):
        if path:
            write(path, "\n".join(form(text, title) for title, text in texts.items()))
    if args.csv:
        frame = csv_frame(rows.order_rows(seeds)[args.columns])
        write(args.csv, frame.to_csv(index=False, float_format="%.4f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
