"""Arguments of the tools that use a trained run, on its own classes or on others."""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets.splits import read_text
from models.inheritance import NEW_CLASSES


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, on which classes."""
    add = parser.add_argument
    add("--model-dir", required=True, metavar="RUN", help="output folder of a run of train.py")
    add("--classes", type=Path, metavar="FILE", help="other classes, a name a line (the run's own)")
    add(
        "--new",
        choices=NEW_CLASSES,
        default="",
        help="Spotlighter: what classes get that the run has not seen: what seen ones learned, "
        "their text alone, or nothing beside the prompts (as the run's config says)",
    )
    add("--root", default="", help="data sets; only for a run that does not name its classes")


def read_class_list(path: Path | None) -> list[str] | None:
    """The names of a file, one a line; None without a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no name, or is no text in UTF-8.
    """
    if path is None:
        return None
    if not path.is_file():
        raise FileNotFoundError(f"there is no class list {path} (--classes)")
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise ValueError(f"{path} holds no class name; give one a line (--classes)")
    return names
