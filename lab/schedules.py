"""Accuracy of zero-shot CLIP with fewer patches, by pruning schedule and by score.

Usage:
    python lab/schedules.py 1:32 1:32,2:12 --sets animals food --split val --half base

Pictures of the embedded benchmark are drawn in memory. The directions are learned from training
pictures of base classes. Columns: both scores, attention alone, directions alone, patches drawn at
random, and the true object mask, which no method knows. Choose a schedule on the default split and
half: they hold no test pictures and no new classes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python lab/schedules.py`
from datasets.emoji_pictures import SETS
from tools.results.cells import markdown_table
from tools.shared.command_line import parser_of, reports_user_errors

if TYPE_CHECKING:
    from lab.bench.backbones import Schedule


def schedule(text: str) -> Schedule:
    """Read "3:98" or "3:98,6:49"."""
    from lab.bench.backbones import parse_schedule

    return parse_schedule(text)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Measure every schedule on every set; print the means over the sets."""
    parser = parser_of(__doc__)
    parser.add_argument("schedules", nargs="+", type=schedule, metavar="BLOCK:KEPT,...")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--half", choices=("base", "new"), default="base")
    parser.add_argument("--per-class", type=int, default=16, help="pictures of each class (16)")
    args = parser.parse_args(argv)
    from lab.bench.schedules import rows_of

    rows = []
    for set_name in args.sets:
        rows += rows_of(set_name, args.schedules, args.split, args.half, args.per_class)
    table = pd.DataFrame(rows).groupby("schedule", sort=False).mean().reset_index()
    print(markdown_table(table, floatfmt=".2f"))
    print(f"\n{len(args.sets)} sets, {args.split} pictures of {args.half} classes, zero-shot CLIP")
    return 0


if __name__ == "__main__":
    sys.exit(main())
