"""The files of each data set and their addresses: the table in sources.yaml, typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

COLLECTION = "https://huggingface.co/zhengli97/prompt_learning_dataset"


class Piece(NamedTuple):
    """One file to get: an archive, or a file that goes into the data set's folder as it is."""

    file: str
    # (path in the archive, path in the data set's folder); an archive may lie within.
    moves: tuple[tuple[str, str], ...] = ()  # `holds` in the table, a list where both are the same
    url: str = ""  # where it is fetched from
    drive: str = ""  # its id on Google Drive, where it is fetched from unless a mirror is named
    md5: str = ""
    where: tuple[str, ...] = ()  # pages or addresses to get it from by hand
    dead: tuple[str, ...] = ()  # addresses that are often named and no longer answer
    raw: bool = False  # needed only without the split file
    sorter: str = ""  # "train" or "val" of ImageNet, whose archives need sorting into folders

    @property
    def gives(self) -> tuple[str, ...]:
        """Paths in the data set's folder that show that the piece is in place."""
        return tuple(target for _, target in self.moves) or (self.file,)

    @property
    def places(self) -> tuple[str, ...]:
        """Every address to get it from with a browser."""
        drive = f"https://drive.google.com/file/d/{self.drive}/view" if self.drive else ""
        return tuple(filter(None, (self.url, drive, *self.where)))


def read_sources() -> dict[str, tuple[Piece, ...]]:
    """Return the pieces of each data set."""
    table = yaml.safe_load(Path(__file__).with_name("sources.yaml").read_text(encoding="utf-8"))
    return {name: tuple(map(_read_piece, entries)) for name, entries in table.items()}


def _read_piece(entry: dict[str, Any]) -> Piece:
    holds = entry.pop("holds", ())
    moves = holds.items() if isinstance(holds, dict) else ((path, path) for path in holds)
    where = (COLLECTION if place == "collection" else place for place in entry.pop("where", ()))
    dead = entry.pop("dead", ())
    return Piece(moves=tuple(moves), where=tuple(where), dead=tuple(dead), **entry)


def collected(dataset_dir: str) -> str:
    """Return the name of a data set's archive in the collection, a zip of its whole folder."""
    return f"{dataset_dir.replace('food-101', 'food101')}.zip"
