"""Check data sets before a run: pictures, classes, splits; everything that would spoil a result.

Usage:
    python tools/check_data.py --root data                  # every published data set that is there
    python tools/check_data.py imagenet dtd --root data
    python tools/check_data.py --root my_pictures --quick   # class folders, or a CSV file

Every picture is decoded; --quick only looks whether the files are there. Exit code 1 means that a
FAULT would spoil a result. A note does not spoil it, but readers of the result should know it. The
last line "No fault found" means that every file was read and is used; for a data set with a
published list, every file of the list.
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
from runs.logs import quiet
from tools.data.check import Finding, Pictures, Subject, check, examine, open_subject, some
from tools.shared.command_line import parser_of, reports_user_errors
from tools.shared.dataset_names import benchmarks, find_name

COLUMNS = (
    *("data set", "split", "listed", "published", "found", "missing", "unreadable"),
    *("classes", "empty", "first and last class"),
)


def rows(subject: Subject, pictures: Pictures) -> list[list[str]]:
    """Return the lines of the table, one for each split."""
    names, published, found = subject.dataset.classnames, subject.dataset.published, []
    for split, items in subject.splits.items():
        missing = sum(item.impath in pictures.missing for item in items)
        broken = sum(item.impath in pictures.unreadable for item in items)
        counts = [len(items), getattr(published, split, None), len(items) - missing]
        counts += [missing, broken, len(names), len(subject.empty_classes(split))]
        words = ["" if count is None else f"{count:,}" for count in counts]
        found.append([subject.name, split, *words, f"{names[0]} ... {names[-1]}"])
    return found


def choose(words: Sequence[str], root: Path) -> list[str]:
    """Return the names of the data sets to check: those named, or those in `root`."""
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
    add("--quick", action="store_true", help="do not decode pictures or compare their content")
    add("--workers", type=int, default=4, help="number of threads that read pictures (4)")
    add("--show", type=int, default=20, help="number of files to list for each fault (20)")
    return parser.parse_args(argv)


def report(names: Sequence[str], args: argparse.Namespace) -> list[Finding]:
    """Check data sets and print table and findings."""
    lines: list[list[str]] = []
    findings: list[tuple[str, Finding]] = []
    for name in names:
        try:
            subject = open_subject(name, args.root)
        except USER_ERRORS as error:
            findings.append((name, Finding(" ".join(str(error).split()))))
            continue
        pictures = examine(subject, args.workers, quick=args.quick)
        lines += rows(subject, pictures)
        findings += [(name, finding) for finding in check(subject, pictures)]
    print(tabulate(lines, COLUMNS, disable_numparse=True))
    for name, finding in findings:
        print(finding.text(name, args.show))
    return [finding for _, finding in findings]


def verdict(findings: Sequence[Finding], *, quick: bool) -> str:
    """Return the last line."""
    faults = [finding for finding in findings if not finding.note]
    unused = range(sum(finding.unused for finding in findings))
    if faults:
        return f"{some(faults, 'fault')} that would spoil a result"
    if unused:
        return f"No fault in what is used, but {some(unused, 'file')} left out; see the notes"
    return "No fault at a quick look: no picture was decoded" if quick else "No fault found"


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Check; a user's mistake ends in one sentence and exit code 2."""
    args = parse_args(argv)
    with quiet("datasets", level=logging.ERROR):  # what the loaders warn of is among the findings
        findings = report(choose(args.datasets, args.root.expanduser()), args)
    print(verdict(findings, quick=args.quick))
    return 0 if all(finding.note for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
