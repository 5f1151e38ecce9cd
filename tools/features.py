"""Show what the store of image features holds (FEATURES.KEEP disk), or clear it.

Usage:
    python tools/features.py
    python tools/features.py --clear
    python tools/features.py --dir /scratch/features
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/features.py`
from tools.results.terminal import add_wide, fitted, plain_table, room
from tools.shared.command_line import parser_of, reports_user_errors

COLUMNS = ["features of", "pictures", "files", "MB", "last used"]


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each backbone and data set, or remove all files of the store."""
    parser = parser_of(__doc__)
    where = "FEATURES.DIR (~/.cache/spotlighter/features)"
    parser.add_argument("--dir", type=Path, help=where)
    parser.add_argument("--clear", action="store_true", help="remove all features")
    add_wide(parser)
    args = parser.parse_args(argv)
    from runs.feature_store import FOLDER, files, unfinished

    folder = (args.dir or FOLDER).expanduser()
    found = sorted(files(folder)) if folder.is_dir() else []
    if args.clear:
        for path in [*(path for *_, path in found), *unfinished(folder)]:
            path.unlink(missing_ok=True)
    size = sum(size for _, size, _ in found) / 2**20
    done = "removed from" if args.clear else "in"
    print(f"{len(found)} files, {size:.1f} MB, {done} {folder}")
    if found and not args.clear:
        print(fitted(table(found), room(wide=args.wide), ["files"], plain_table))
    return 0


def table(found: list[tuple[float, int, Path]]) -> pd.DataFrame:
    """A row for each backbone and data set."""
    from runs.feature_store import described

    rows = []
    for used, size, path in found:
        what, pictures = described(path)
        rows.append((what, pictures, 1, size / 2**20, used))
    whole = pd.DataFrame(rows, columns=COLUMNS)
    sums = {"pictures": "sum", "files": "sum", "MB": "sum", "last used": "max"}
    whole = whole.groupby("features of", as_index=False).agg(sums)
    whole["last used"] = [f"{datetime.fromtimestamp(t):%Y-%m-%d %H:%M}" for t in whole["last used"]]
    return whole.round({"MB": 1})


if __name__ == "__main__":
    sys.exit(main())
