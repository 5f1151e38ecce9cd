"""Write docs/compatibility.md from the table docs/compatibility.yaml.

Usage:
    python tools/describe_compatibility.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/describe_compatibility.py`
from tools.describe_data import table
from tools.shared.command_line import parser_of

PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"
KINDS = {
    "repository": "Projects that run on our engine",
    "trainer": "Our trainers",
    "checkpoint": "Checkpoints",
    "log": "Logs",
    "command": "Commands",
}
FIELDS = ("name", "tried", "figure", "works", "note")
WORKS = ("yes", "no", "partly")
HEAD = """# Compatibility

Which projects, trainers, checkpoints, logs and commands of the family were tried, and what does
not work.
`python tools/describe_compatibility.py` makes this page from `docs/compatibility.yaml`.
"""


def read_rows() -> list[dict[str, str]]:
    """Return the checked rows of the table; every value is a text, so yes and no are quoted."""
    rows = yaml.safe_load(PAGE.with_suffix(".yaml").read_text(encoding="utf-8"))
    for row in rows:
        if set(row) != {"kind", *FIELDS}:
            raise ValueError(f"{row} needs the fields kind, {', '.join(FIELDS)}, and no others")
        if row["kind"] not in KINDS or row["works"] not in WORKS:
            raise ValueError(
                f"{row['name']}: kind must be one of {', '.join(KINDS)} and works one of "
                f"{', '.join(WORKS)}, got {row['kind']} and {row['works']}"
            )
    return rows


def page() -> str:
    """Return the page, one table for each kind."""
    rows, parts = read_rows(), [HEAD]
    for kind, title in KINDS.items():
        if found := [[row[field] for field in FIELDS] for row in rows if row["kind"] == kind]:
            parts.append(f"## {title}\n\n{table(FIELDS, found)}")
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser_of(__doc__).parse_args(argv)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
