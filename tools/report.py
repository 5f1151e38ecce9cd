"""Write one self-contained HTML report of all results below a folder.

Usage:
    python tools/report.py output/base2new --output page.html --title "Base to new"

Tables that can be sorted, bars, few-shot curves, radar, confusion of the worst classes, training
curves, kept patches, and config, versions and revision of every run. The page needs no network.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/report.py`
from tools.results.page import build_page
from tools.results.rows import load_runs, pair_runs
from tools.shared.command_line import parser_of, reports_user_errors, whole


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("results", type=Path, help="folder below which results are looked for")
    add("--output", type=Path, help="file to write (RESULTS/report.html)")
    add("--title", default="Results", help="of the page (Results)")
    add("--root", default="", help="folder of all data sets, if it was moved")
    add("--overlays", type=whole(0), default=2, help="data sets whose kept patches are drawn (2)")
    return parser.parse_args(arguments)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; returns 1 if nothing was found."""
    args = parse_arguments(arguments)
    runs = load_runs(args.results)
    if not runs:
        print(f"no results below {args.results}", file=sys.stderr)
        return 1
    page = build_page(pair_runs(runs), runs, args.title, args.root, args.overlays)
    output = args.output or args.results / "report.html"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    print(f"Wrote {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
