"""Arguments of the tools that use a trained run, on its own classes or on others."""

import argparse
import re
from pathlib import Path

from datasets.folder import CLASS_LIST, read_class_names
from datasets.splits import read_text
from models.spotlighter import NEW_CLASSES

STARTS_WITH_ID = re.compile(r"n\d+\s|[^\t]+\t")  # a synset of WordNet, or a folder and a tab


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, on which classes."""
    classes = """other classes, a name a line, or "n01440764 tench" as in ImageNet's classnames.txt
        (the run's own)"""
    new = """Spotlighter: how to treat class names that were not in training: inherit the prototypes
        of similar classes, use their text only, whichever did better on held-out training classes
        (auto), or the prompts only (off); default: as the run's config says"""
    add = parser.add_argument
    add("--model-dir", required=True, metavar="RUN", help="output folder of a run of train.py")
    add("--classes", type=Path, metavar="FILE", help=classes)
    add("--new", choices=NEW_CLASSES, default="", help=new)
    add("--root", default="", help="data sets; only for a run that does not name its classes")


def read_class_list(path: Path | None) -> list[str] | None:
    """The names of a file, one a line, also after an id or a folder and a tab; None without one."""
    if path is None:
        return None
    if not path.is_file():
        raise FileNotFoundError(f"there is no class list {path} (--classes)")
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise ValueError(f"{path} holds no class name; give one a line (--classes)")
    if all(STARTS_WITH_ID.match(name) for name in names):
        return list(read_class_names(path).values())
    if path.name == CLASS_LIST and any(" " in name for name in names):
        what = f"{path}: a {CLASS_LIST} has lines of a folder and a name; set them apart by a tab"
        raise ValueError(f"{what}, or call the file otherwise if each line is a name (--classes)")
    return names
