"""What would spoil a result, and what a reader of it should know."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence, Sized
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from datasets.pictures import shown, what_is_left
from datasets.splits import SPLITS
from tools.data.check.pictures import Pictures
from tools.data.check.subject import Subject


class Finding(NamedTuple):
    """One thing to say about a data set.

    Attributes:
        name: of the data set.
        what: a sentence.
        which: files or classes it is about.
        note: whether results are sound in spite of it.
        unused: files that are left out.
    """

    name: str
    what: str
    which: Sequence[str] = ()
    note: bool = False
    unused: int = 0

    def text(self, most: int) -> str:
        """Return the finding in lines, with as many of its files as are wanted."""
        lines = [f"{'note' if self.note else 'FAULT'}: {self.name}: {self.what}"]
        lines += [f"    {shown(entry)}" for entry in self.which[:most]]
        if len(self.which) > most:
            lines.append(f"    and {len(self.which) - most} more (--show)")
        return "\n".join(lines)


def some(things: Sized, word: str = "picture") -> str:
    """Return a number and what it counts, as "1 picture" or "2 pictures"."""
    return f"{len(things):,} {word}{'' if len(things) == 1 else 's'}"


def check_pictures(subject: Subject, pictures: Pictures) -> Iterator[Finding]:
    """Find pictures that are missing or cannot be decoded, split by split."""
    for split, items in subject.splits.items():
        paths = dict.fromkeys(item.impath for item in items)
        if missing := [path for path in paths if path in pictures.missing]:
            yield Finding(subject.name, f"{split}: {some(missing)} missing", missing)
        broken = [pictures.unreadable[path] for path in paths if path in pictures.unreadable]
        if broken:
            yield Finding(subject.name, f"{split}: {some(broken)} unreadable", broken)


def check_left_out(subject: Subject) -> Iterator[Finding]:
    """Tell what lies among the pictures and is not used."""
    for reason, paths in subject.left_out.items():
        if paths:
            what = f"left out: {what_is_left(reason, paths)}"
            files = sum(not path.is_dir() for path in paths)
            yield Finding(subject.name, what, list(map(str, paths)), note=True, unused=files)


def check_turned(subject: Subject, pictures: Pictures) -> Iterator[Finding]:
    """Tell which pictures have EXIF data that call for a turn, and what becomes of them."""
    if pictures.turned:
        done = "turned upright" if subject.upright else "read as they are stored"
        what = f"{some(pictures.turned)} whose EXIF data call for a turn, {done} (INPUT.EXIF auto)"
        yield Finding(subject.name, what, sorted(pictures.turned), note=True)


def check_classes(subject: Subject) -> Iterator[Finding]:
    """Find classes without pictures, of several names, of one name, and in another order."""
    for split in subject.splits:
        if empty := subject.empty_classes(split):
            what = f"{split}: {len(empty)} of {len(subject.class_names)} classes without a picture"
            yield Finding(subject.name, what, empty, note=split == "val")
    labels = defaultdict(set)
    for items in subject.splits.values():
        for item in items:
            if item.classname != subject.class_names[item.label]:
                labels[item.label] |= {item.classname, subject.class_names[item.label]}
    if labels:
        which = [f"{label}: {', '.join(sorted(names))}" for label, names in sorted(labels.items())]
        yield Finding(subject.name, f"{some(labels, 'label')} with more than one class name", which)
    same = [name for name, count in Counter(subject.class_names).items() if count > 1]
    if same:
        what = f"{some(same, 'class name')} of several labels, which prompts cannot tell apart"
        yield Finding(subject.name, what, same, note=True)
    yield from check_order(subject)


def check_order(subject: Subject) -> Iterator[Finding]:
    """Find labels that do not follow the folders of the pictures, where they should."""
    if not subject.labels_by_folder:
        return
    folders: dict[int, str] = {}
    for items in subject.splits.values():
        for item in items:
            folders.setdefault(item.label, Path(item.impath).parent.name)
    names = [folders[label] for label in sorted(folders)]
    if names != sorted(names):
        first = next(a for a, b in zip(names, sorted(names), strict=True) if a != b)
        what = "classes are not in the published order, so base and new classes are others"
        yield Finding(subject.name, what, [f"the first folder out of place is {first}"])


def check_counts(subject: Subject) -> Iterator[Finding]:
    """Compare the numbers of classes and pictures with the published ones."""
    published = subject.published
    if published is None:
        return
    if len(subject.class_names) != published.classes:
        what = f"{len(subject.class_names)} classes, published are {published.classes}"
        yield Finding(subject.name, what)
    if subject.origin:
        what = f"the split is not the published one: {subject.origin}"
        yield Finding(subject.name, what, note=True)
        return
    for split in SPLITS:
        count, expected = len(subject.splits.get(split, ())), getattr(published, split)
        if count != expected:
            what = f"{split}: {some(range(count))} listed, published are {expected:,}"
            yield Finding(subject.name, what)


def check_duplicates(subject: Subject, pictures: Pictures) -> Iterator[Finding]:
    """Find pictures that are in two splits, by path and by content, and twice in one.

    Equal files under two names are no fault of a published split: published results have them, too.
    """
    own = subject.published is None or bool(subject.origin)
    for split, items in subject.splits.items():
        counts = Counter(item.impath for item in items)
        if twice := sorted(path for path, count in counts.items() if count > 1):
            yield Finding(subject.name, f"{split}: {some(twice)} listed twice", twice)
    for one, other in combinations(subject.splits, 2):
        first, second = ({i.impath for i in subject.splits[split]} for split in (one, other))
        if both := sorted(first & second):
            what = f"{some(both)} both in {one} and in {other}"
            yield Finding(subject.name, what, both)
        known = {pictures.digests[path]: path for path in first if path in pictures.digests}
        pairs = [
            f"{known[digest]} = {path}"
            for path in sorted(second - first)
            if (digest := pictures.digests.get(path)) in known
        ]
        if pairs:
            what = f"{some(pairs)} of {other} with the content of one of {one}"
            yield Finding(subject.name, what, pairs, note=not own)
