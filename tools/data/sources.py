"""The published data sets by name; the files of each and their addresses (sources.yaml)."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from dassl.data.datasets import DATASET_REGISTRY

from datasets import FewShotDataset
from models.clip.fetch import alone_with, fetch, part_of
from tools.sweeps.names import CONFIGS, dataset_name, read_yaml, stems

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
    table = read_yaml(Path(__file__).with_name("sources.yaml"))
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


def yaml_stems() -> dict[str, str]:
    """Return the stem of the yaml in configs/datasets by the data set's name."""
    return {dataset_name(stem): stem for stem in stems(CONFIGS / "datasets")}


def benchmarks() -> dict[str, type[FewShotDataset]]:
    """Return the published data sets by name, the eleven benchmarks before ImageNet's variants."""
    found = {name: DATASET_REGISTRY.get(name) for name in yaml_stems()}
    published = {name: cls for name, cls in found.items() if cls.published}
    return dict(sorted(published.items(), key=lambda pair: (pair[1].test_only, pair[0])))


def find_name(word: str) -> str:
    """Return the name of a data set from its name or its yaml's stem, in any case of letters."""
    known = {key.lower(): name for name, stem in yaml_stems().items() for key in (name, stem)}
    if word.lower() not in known:
        names = ", ".join(sorted(set(known.values())))
        raise ValueError(f"{word!r} is no data set; choose one of {names}.")
    return known[word.lower()]


def download(piece: Piece, target: Path, mirror: str) -> None:
    """Download a piece; split files and class lists come from `mirror`, or else Google Drive."""
    print(f"fetching {piece.file}", flush=True)
    if piece.url:
        fetch(piece.url, target, piece.md5)
    elif mirror:
        fetch(f"{mirror.rstrip('/')}/{piece.file}", target)
    else:
        fetch_from_drive(piece.drive, target)


def fetch_from_drive(drive: str, target: Path) -> None:
    """Download a file from Google Drive; an OSError where it refuses, as after many downloads."""
    with alone_with(target):
        if target.is_file():
            return  # another process was quicker
        import gdown  # slow to import

        partial, silent = part_of(target), not sys.stderr.isatty()
        try:
            gdown.download(id=drive, output=str(partial), resume=True, quiet=silent)
        except Exception as error:  # gdown's own, of several kinds
            raise OSError(
                f"Google Drive does not give {target.name} ({' '.join(str(error).split())}). Fetch "
                f"https://drive.google.com/file/d/{drive}/view with a browser, put it into "
                f"{target.parent} and repeat the command; or name a mirror with --mirror."
            ) from error
        partial.replace(target)
