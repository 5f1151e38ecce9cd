"""Check data sets before a run: pictures, classes, splits; everything that would spoil a result.

Usage:
    python tools/check_data.py --root data                  # every published data set that is there
    python tools/check_data.py imagenet dtd --root data
    python tools/check_data.py --root my_pictures --quick   # class folders, or a CSV file

Every picture is decoded; --quick only looks whether the files are there. Exit code 1 means that a
FAULT would spoil a result. A note does not spoil it, but readers of the result should know it. The
last line "No fault found" means that every file was read and is used; for a data set with a
published list, every file of the list. Of your own pictures, each class is counted, too.
"""

import argparse
import hashlib
import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, combinations
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from dassl.config import get_cfg_default
from dassl.data.datasets import Datum, build_dataset
from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/check_data.py`
from datasets.base import FewShotDataset
from datasets.benchmarks import FolderBenchmark
from datasets.folder import Folder, holds_classes
from datasets.pictures import TURNED, open_picture, shown, what_is_left
from datasets.splits import ORIGIN, SPLITS, read_json
from runs.errors import USER_ERRORS, sentence
from runs.logs import quiet
from tools.data.sources import benchmarks, find_name
from tools.results.terminal import add_wide, fitted, plain_table, room
from tools.shared.command_line import parser_of, reports_user_errors

CHUNK = 1024  # pictures that are waited for at a time
SHOTS = 16  # training pictures of a class that most experiments use
MIN_BASE_TO_NEW = 4  # classes
UNEVEN = 3  # times as many pictures as the smallest class has are worth a note
COLUMNS = ["data set", "split", "listed", "published", "found", "missing", "unreadable"]
COLUMNS += ["classes", "empty", "first and last class"]
OPTIONAL = ["first and last class", "found", "empty"]  # not shown in a narrow terminal


class Subject(NamedTuple):
    """A data set with all its classes and pictures."""

    name: str  # DATASET.NAME
    dataset: FewShotDataset
    splits: dict[str, list[Datum]]  # without empty ones
    origin: str  # how the split was made here; "" for the published one

    def items(self) -> Iterator[Datum]:
        """Return the items of all splits."""
        return chain.from_iterable(self.splits.values())

    def empty_classes(self, split: str) -> list[str]:
        """Return the classes without a picture in a split."""
        filled = {item.label for item in self.splits[split]}
        return [name for n, name in enumerate(self.dataset.classnames) if n not in filled]


class Pictures(NamedTuple):
    """What was found in the files, by path."""

    missing: set[str]
    unreadable: dict[str, str]  # what is wrong
    digests: dict[str, bytes]  # of the content; empty after a quick look
    turned: set[str]  # those with an EXIF rotation flag


class Finding(NamedTuple):
    """A fault, or a note, which leaves results sound."""

    what: str
    which: Sequence[str] = ()  # files or classes
    note: bool = False
    unused: int = 0  # number of files that are left out

    def text(self, most: int) -> str:
        """Return the lines to print, with at most `most` entries."""
        lines = [f"{'note' if self.note else 'FAULT'}: {self.what}"]
        lines += [f"    {shown(entry)}" for entry in self.which[:most]]
        more = len(self.which) - most
        return "\n".join([*lines, f"    and {more} more (--show)"] if more > 0 else lines)


def open_subject(name: str, root: Path) -> Subject:
    """Read a data set with all its classes and pictures."""
    cfg = get_cfg_default()
    cfg.DATASET.NAME, cfg.DATASET.ROOT, cfg.DATASET.SUBSAMPLE_CLASSES = name, str(root), "all"
    cfg.VERBOSE = False
    dataset = build_dataset(cfg)
    train = [] if dataset.test_only else dataset.train_x  # else they stand in for the test's
    parts = zip(SPLITS, (train, dataset.val, dataset.test), strict=True)
    splits = {split: items for split, items in parts if items}
    origin = "made from the data set's own lists, and not kept" if dataset.split_file else ""
    if dataset.split_file and dataset.split_path.is_file():
        origin = str(read_json(dataset.split_path).get(ORIGIN, ""))
    if origin and isinstance(dataset, FolderBenchmark):
        dataset.read_raw()  # fills left_out, which the split file does not hold
    return Subject(name, dataset, splits, origin)


def examine(subject: Subject, workers: int, *, quick: bool) -> Pictures:
    """Decode every picture, in threads; `quick` only looks whether the files are there."""
    found = Pictures(set(), {}, {}, set())
    paths = list(dict.fromkeys(item.impath for item in subject.items()))
    if quick:
        found.missing.update(path for path in paths if not Path(path).is_file())
        return found

    def decode(path: str) -> None:
        try:
            if open_picture(path).info[TURNED]:
                found.turned.add(path)
            found.digests[path] = hashlib.sha256(Path(path).read_bytes()).digest()
        except FileNotFoundError:
            found.missing.add(path)
        except (OSError, ValueError) as error:
            found.unreadable[path] = sentence(error)

    chunks = [paths[first : first + CHUNK] for first in range(0, len(paths), CHUNK)]
    bar = {"console": Console(stderr=True), "disable": not sys.stderr.isatty()}
    with ThreadPoolExecutor(workers) as pool:
        for chunk in track(chunks, f"Reading {subject.name}", **bar):
            list(pool.map(decode, chunk))
    return found


def some(things: Sized, word: str = "picture", end: str = "s") -> str:
    """Return a number and what it counts, as "1 picture" or "2 pictures"."""
    return f"{len(things):,} {word}{'' if len(things) == 1 else end}"


def check_pictures(subject: Subject, pictures: Pictures) -> Iterator[Finding]:
    """Find pictures of each split that are missing or cannot be decoded."""
    for split, items in subject.splits.items():
        paths = dict.fromkeys(item.impath for item in items)
        if missing := [path for path in paths if path in pictures.missing]:
            yield Finding(f"{split}: {some(missing)} missing", missing)
        if broken := [pictures.unreadable[path] for path in paths if path in pictures.unreadable]:
            yield Finding(f"{split}: {some(broken)} unreadable", broken)


def check_classes(subject: Subject, _: Pictures) -> Iterator[Finding]:
    """Find classes without pictures, labels with several names, and names with several labels."""
    class_names = subject.dataset.classnames
    for split in subject.splits:
        if empty := subject.empty_classes(split):
            what = f"{split}: {len(empty)} of {len(class_names)} classes without a picture"
            yield Finding(what, empty, note=split == "val")
    labels = defaultdict(set)
    for item in subject.items():
        if item.classname != class_names[item.label]:
            labels[item.label] |= {item.classname, class_names[item.label]}
    if labels:
        which = [f"{label}: {', '.join(sorted(names))}" for label, names in sorted(labels.items())]
        yield Finding(f"{some(labels, 'label')} with more than one class name", which)
    if same := [name for name, count in Counter(class_names).items() if count > 1]:
        what = f"{some(same, 'class name')} of several labels, which prompts cannot tell apart"
        yield Finding(what, same, note=True)


def check_sizes(subject: Subject, _: Pictures) -> Iterator[Finding]:
    """Count the pictures of each class; find what is too little for training and protocols."""
    names = subject.dataset.classnames
    if len(names) == 1:
        yield Finding("one class: there is nothing to tell it from; add another class folder")
    elif len(names) < MIN_BASE_TO_NEW:
        what = f"{len(names)} classes: base-to-new needs {MIN_BASE_TO_NEW}, two for each half"
        yield Finding(f"{what}; few-shot (scripts/fewshot.sh, scripts/own.sh) does not", note=True)
    if not subject.dataset.own_data:
        return
    counts = {split: Counter(i.label for i in items) for split, items in subject.splits.items()}
    sizes = {label: sum(count[label] for count in counts.values()) for label in range(len(names))}
    order = sorted(sizes, key=lambda label: sizes[label])
    parts = (", ".join(f"{split} {count[n]}" for split, count in counts.items()) for n in order)
    rows = [f"{names[n]}: {sizes[n]} ({part})" for n, part in zip(order, parts, strict=True)]
    least, most = sizes[order[0]], sizes[order[-1]]
    each = f"{least} to {most}, fewest first" if least < most else f"{most}"
    yield Finding(f"pictures of each class: {each}", rows, note=True)
    if most >= UNEVEN * max(1, least):
        what = f"imbalance: {names[order[-1]]} has {most} pictures, {names[order[0]]} has {least}"
        yield Finding(f"{what}; macro F1 counts each class alike, accuracy each picture", note=True)
    short = [n for n in order if 0 < counts.get("train", Counter())[n] < SHOTS]
    if short:
        what = f"train: {some(short, 'class', 'es')} with fewer than {SHOTS} pictures"
        yield Finding(f"{what}; where {SHOTS} shots are asked for, all are taken", note=True)


def check_order(subject: Subject, _: Pictures) -> Iterator[Finding]:
    """Find labels that do not follow the folders of the pictures, where they should."""
    if not subject.dataset.labels_by_folder:
        return
    folders: dict[int, str] = {}
    for item in subject.items():
        folders.setdefault(item.label, Path(item.impath).parent.name)
    names = [folders[label] for label in sorted(folders)]
    if names != sorted(names):
        first = next(a for a, b in zip(names, sorted(names), strict=True) if a != b)
        what = "classes are not in the published order, so base and new classes are others"
        yield Finding(what, [f"the first folder out of place is {first}"])


def check_counts(subject: Subject, _: Pictures) -> Iterator[Finding]:
    """Compare the numbers of classes and pictures with the published ones."""
    published, classes = subject.dataset.published, len(subject.dataset.classnames)
    if published is None:
        return
    if classes != published.classes:
        yield Finding(f"{classes} classes, {published.classes} are published")
    if subject.origin:
        yield Finding(f"the split is not the published one: {subject.origin}", note=True)
        return
    for split in SPLITS:
        items, expected = subject.splits.get(split, ()), getattr(published, split)
        if len(items) != expected:
            yield Finding(f"{split}: {some(items)} listed, {expected:,} are published")


def check_duplicates(subject: Subject, pictures: Pictures) -> Iterator[Finding]:
    """Find pictures that are in two splits, by path and by content, and twice in one."""
    # Files of equal content are no fault of a published split: published results have them, too.
    published = subject.dataset.published is not None and not subject.origin
    for split, items in subject.splits.items():
        counts = Counter(item.impath for item in items)
        if twice := sorted(path for path, count in counts.items() if count > 1):
            yield Finding(f"{split}: {some(twice)} listed twice", twice)
    for one, other in combinations(subject.splits, 2):
        first, second = ({i.impath for i in subject.splits[split]} for split in (one, other))
        if both := sorted(first & second):
            yield Finding(f"{some(both)} both in {one} and in {other}", both)
        known = {pictures.digests[path]: path for path in first if path in pictures.digests}
        digests = {path: pictures.digests.get(path) for path in sorted(second - first)}
        if pairs := [f"{known[own]} = {path}" for path, own in digests.items() if own in known]:
            what = f"{some(pairs)} of {other} with the content of one of {one}"
            yield Finding(what, pairs, note=published)


def check_labels(subject: Subject, pictures: Pictures) -> Iterator[Finding]:
    """Find pictures of equal content, or path, that are in several classes."""
    same: dict[bytes | str, dict[int, Datum]] = defaultdict(dict)  # an item by label
    for item in subject.items():
        same[pictures.digests.get(item.impath, item.impath)].setdefault(item.label, item)
    groups = [found.values() for found in same.values() if len(found) > 1]
    which = [" = ".join(f"{item.impath} ({item.classname})" for item in found) for found in groups]
    if which:
        what = f"{some(which)} in more than one class; keep each in the one that is right"
        yield Finding(what, which, note=subject.dataset.published is not None)


def note_unused_and_turned(subject: Subject, pictures: Pictures) -> Iterator[Finding]:
    """Report unused files among the pictures, and pictures with an EXIF rotation flag."""
    for reason, paths in subject.dataset.left_out.items():
        if paths:
            files, what = sum(not path.is_dir() for path in paths), what_is_left(reason, paths)
            yield Finding(f"left out: {what}", list(map(str, paths)), note=True, unused=files)
    if pictures.turned:
        ignored = "which is ignored, as in CoOp; INPUT.EXIF upright follows it"
        followed = "which is followed; INPUT.EXIF stored ignores it"
        done = followed if subject.dataset.upright else ignored
        what = f"{some(pictures.turned)} with an EXIF rotation flag, {done}"
        yield Finding(what, sorted(pictures.turned), note=True)


CHECKS = [check_pictures, check_classes, check_sizes, check_order, check_counts]
CHECKS += [check_duplicates, check_labels, note_unused_and_turned]


def findings_of(subject: Subject, pictures: Pictures) -> list[Finding]:
    """Return what all checks find."""
    return [finding for check in CHECKS for finding in check(subject, pictures)]


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
    known = benchmarks()
    if there := [name for name, cls in known.items() if (root / cls.dataset_dir).is_dir()]:
        return there
    if holds_classes(root):
        return [Folder.__name__]
    raise ValueError(
        f"None of {', '.join(known)} is in {root}, and no folders of pictures are. --root is the "
        "folder of all data sets (tools/prepare_data.py fetches some), or, for pictures of your "
        "own, the one that holds a folder for each class."
    )


def report(names: Sequence[str], args: argparse.Namespace) -> list[Finding]:
    """Check data sets and print table and findings."""
    lines, findings = [], []
    for name in names:
        try:
            subject = open_subject(name, args.root)
        except USER_ERRORS as error:
            found = [Finding(" ".join(str(error).split()))]
        else:
            pictures = examine(subject, args.workers, quick=args.quick)
            lines += rows(subject, pictures)
            found = findings_of(subject, pictures)
        findings += [finding._replace(what=f"{name}: {finding.what}") for finding in found]
    table = pd.DataFrame(lines, columns=COLUMNS)
    print(fitted(table, room(wide=args.wide), OPTIONAL, plain_table))
    for finding in findings:
        print(finding.text(args.show))
    return findings


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Check; a user's mistake ends in one sentence and exit code 2."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("datasets", nargs="*", metavar="DATASET", help="name, or stem of the yaml (default: all)")
    add("--root", required=True, type=Path, help="folder of all data sets; of Folder, its own")
    add("--quick", action="store_true", help="do not decode pictures or compare their content")
    add("--workers", type=int, default=4, help="number of threads that read pictures (4)")
    add("--show", type=int, default=20, help="number of files to list for each fault (20)")
    add_wide(parser)
    args = parser.parse_args(argv)
    with quiet("datasets", level=logging.ERROR):  # what the loaders warn of is among the findings
        findings = report(choose(args.datasets, args.root.expanduser()), args)
    faults = [finding for finding in findings if not finding.note]
    unused = range(sum(finding.unused for finding in findings))
    if faults:
        print(f"{some(faults, 'fault')} that would spoil a result")
    elif unused:
        print(f"No fault in what is used, but {some(unused, 'file')} left out; see the notes")
    elif args.quick:
        print("No fault at a quick look: no picture was decoded")
    else:
        print("No fault found")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
