"""Check data sets before a run: pictures, classes, splits; everything that would spoil a result.

Usage:
    python tools/check_data.py --root data                  # every published data set that is there
    python tools/check_data.py imagenet dtd --root data
    python tools/check_data.py --root my_pictures --quick   # class folders, or a CSV file

Every picture is decoded; --quick only looks whether the files are there. Exit code 1: something
would spoil a result. A note does not: it says what a reader of the result should know. The last
line "No fault found" means that every file was read and is used; where a published list says what
is used, that every file of the list was read.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/check_data.py`
from datasets.folder import Folder, holds_classes
from runs.errors import USER_ERRORS
from runs.quiet import quiet
from tools.data.check.pictures import Pictures, examine
from tools.data.check.rules import (
    Finding,
    check_classes,
    check_counts,
    check_duplicates,
    check_left_out,
    check_pictures,
    check_turned,
    some,
)
from tools.data.check.subject import Subject, open_subject
from tools.shared.command_line import parser_of, reports_user_errors
from tools.shared.dataset_names import benchmarks, find_name

COLUMNS = (
    *("data set", "split", "listed", "published", "found", "missing", "unreadable"),
    *("classes", "empty", "first and last class"),
)


def check(subject: Subject, pictures: Pictures) -> list[Finding]:
    """Return everything that is to be said about a data set."""
    return [
        *check_pictures(subject, pictures),
        *check_classes(subject),
        *check_counts(subject),
        *check_duplicates(subject, pictures),
        *check_left_out(subject),
        *check_turned(subject, pictures),
    ]


def rows(subject: Subject, pictures: Pictures) -> list[list[str]]:
    """Return the lines of the table, one a split."""
    names, found = subject.class_names, []
    for split, items in subject.splits.items():
        published = getattr(subject.published, split) if subject.published else None
        missing = sum(item.impath in pictures.missing for item in items)
        broken = sum(item.impath in pictures.unreadable for item in items)
        counts = [len(items), published, len(items) - missing, missing, broken]
        counts += [len(names), len(subject.empty_classes(split))]
        words = ["" if count is None else f"{count:,}" for count in counts]
        found.append([subject.name, split, *words, f"{names[0]} ... {names[-1]}"])
    return found


def choose(words: Sequence[str], root: Path) -> list[str]:
    """Return the names of the data sets to check: those named, or those that are there.

    A folder of one's own pictures is found without its name.

    Raises:
        ValueError: there is no such data set, or nothing is there.
    """
    if words:
        return [find_name(word) for word in words]
    there = [name for name, cls in benchmarks().items() if (root / cls.dataset_dir).is_dir()]
    if not there and holds_classes(root):
        return [Folder.__name__]
    if not there:
        raise ValueError(
            f"None of {', '.join(benchmarks())} is in {root}; name the folder of all data sets "
            "with --root, or see tools/prepare_data.py."
        )
    return there


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("datasets", nargs="*", metavar="DATASET", help="name, or stem of the yaml (default: all)")
    add("--root", required=True, type=Path, help="folder of all data sets; of Folder, its own")
    add("--quick", action="store_true", help="do not decode pictures, nor compare their content")
    add("--workers", type=int, default=4, help="threads that read pictures (4)")
    add("--show", type=int, default=20, help="files to name for each kind of fault (20)")
    return parser.parse_args(argv)


def report(names: Sequence[str], args: argparse.Namespace) -> list[Finding]:
    """Check data sets and print the table; returns the findings."""
    lines: list[list[str]] = []
    findings: list[Finding] = []
    for name in names:
        try:
            subject = open_subject(name, args.root)
        except USER_ERRORS as error:
            findings.append(Finding(name, " ".join(str(error).split())))
            continue
        title = f"Reading {name}"
        pictures = examine(subject.paths(), args.workers, quick=args.quick, title=title)
        lines += rows(subject, pictures)
        findings += check(subject, pictures)
    print(tabulate(lines, COLUMNS, disable_numparse=True))
    return findings


def verdict(findings: Sequence[Finding], *, quick: bool) -> str:
    """Return the last line: data are fit for results if every file was read and is used."""
    faults = [finding for finding in findings if not finding.note]
    unused = range(sum(finding.unused for finding in findings))
    if faults:
        return f"{some(faults, 'fault')} that would spoil a result"
    if unused:
        return f"No fault in what is used, but {some(unused, 'file')} left out; see the notes"
    return "No fault at a quick look: no picture was decoded" if quick else "No fault found"


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Check; a mistake of the user's ends in one sentence and exit code 2."""
    args = parse_args(argv)
    with quiet("datasets", level=logging.ERROR):  # what the loaders warn of is among the findings
        findings = report(choose(args.datasets, args.root.expanduser()), args)
    for finding in findings:
        print(finding.text(args.show))
    print(verdict(findings, quick=args.quick))
    return 0 if all(finding.note for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
