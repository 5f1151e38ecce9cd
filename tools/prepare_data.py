"""Fetch and arrange a data set, or say exactly what to get from where.

Usage:
    python tools/prepare_data.py OxfordPets dtd --root data
    python tools/prepare_data.py ImageNet --root data --archives ~/Downloads
    python tools/prepare_data.py EuroSAT --root data --mirror https://host/split_files

Fetched: Caltech101, OxfordPets, OxfordFlowers, Food101, FGVCAircraft, DescribableTextures, EuroSAT,
and every split file and class list. The other pictures have no address that can be relied on, or
need an account: put the archives into --archives, and they are checked, unpacked and arranged. What
is in place is left alone; an interrupted command is repeated. Exit code 1: something is left to get
by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/prepare_data.py`
from datasets.base import FewShotDataset
from datasets.division import CLASS_LIST
from models.clip.fetch import fetch, require_checksum
from tools.data.prepare.arrange import is_whole, missing_parts, put, put_whole, require_content
from tools.data.prepare.download import fetch_from_drive
from tools.data.prepare.sources import COLLECTION, Piece, collected, read_sources
from tools.shared.command_line import parser_of, reports_user_errors
from tools.shared.dataset_names import benchmarks, find_name


class Places(NamedTuple):
    """Where things are looked for and put.

    Attributes:
        folder: of the data set.
        archives: what the user has; archives are fetched to here.
        mirror: address of a folder with split files and class lists; empty for Google Drive.
        keep: whether fetched archives stay after they are unpacked.
    """

    folder: Path
    archives: Path
    mirror: str
    keep: bool

    def find(self, file: str) -> Path | None:
        """Return where a file is that the user has; ImageNet's class list serves its variants."""
        folders = [self.archives, self.folder]
        if file == CLASS_LIST:
            folders.append(self.folder.parent / "imagenet")
        return next((folder / file for folder in folders if (folder / file).is_file()), None)


def prepare(name: str, dataset: type[FewShotDataset], places: Places) -> list[Piece]:
    """Put every piece of a data set in its place; returns those that have to be got by hand."""
    pieces = read_sources()[name]
    whole = places.find(collected(dataset.dataset_dir))
    lacking = [piece for piece in pieces if missing_parts(piece, places.folder)]
    if lacking and whole is not None and is_whole(whole, places.folder.name, pieces[0]):
        print(f"{name}: unpacking {whole}")
        put_whole(whole, places.folder)
    left = []
    for piece in pieces:
        state = "in place"
        if missing_parts(piece, places.folder):
            state = attempt(piece, dataset, places)
            left += [piece] * (state != "done")
        print(f"{name}: {', '.join(piece.gives)}: {state}")
    if dataset.split_file and (places.folder / dataset.split_file).is_file():
        return [piece for piece in left if not piece.raw]
    return left


def attempt(piece: Piece, dataset: type[FewShotDataset], places: Places) -> str:
    """Get a piece; returns "done", or why not. A server that fails does not keep others waiting."""
    try:
        return "done" if get(piece, dataset, places) else "missing"
    except OSError as error:
        return f"missing. {error}"


def get(piece: Piece, dataset: type[FewShotDataset], places: Places) -> bool:
    """Find or fetch a piece and put it in its place; returns whether there was one."""
    source = places.find(piece.file)
    if source is not None:
        require_checksum(source, piece.md5, str(source))
        if not piece.moves:
            require_content(dataset, source)
        put(piece, source, places.folder)
        return True
    if not piece.moves and (piece.url or piece.drive):
        download(piece, places.folder / piece.file, places.mirror)
        try:
            require_content(dataset, places.folder / piece.file)
        except ValueError:
            (places.folder / piece.file).unlink()
            raise
        return True
    if not piece.url:
        return False
    source = places.archives / piece.file
    download(piece, source, places.mirror)
    put(piece, source, places.folder)
    if not places.keep:
        source.unlink()
    return True


def download(piece: Piece, target: Path, mirror: str) -> None:
    """Fetch a piece from its address, from the mirror, or from Google Drive."""
    print(f"fetching {piece.file}", flush=True)
    if piece.url:
        fetch(piece.url, target, piece.md5)
    elif mirror:
        fetch(f"{mirror.rstrip('/')}/{piece.file}", target)
    else:
        fetch_from_drive(piece.drive, target)


def instructions(name: str, dataset: type[FewShotDataset], left: Sequence[Piece]) -> str:
    """Say what to get from where, and what need not be tried."""
    lines = [f"\n{name}: get these files and repeat the command with --archives FOLDER:"]
    for piece in left:
        lines.append(
            f"  {piece.file}" + (" (only for want of the split file)" if piece.raw else "")
        )
        lines += [f"    from {place}" for place in piece.places]
        lines += [f"    dead: {address}" for address in piece.dead]
        lines += [f"    MD5 {piece.md5}"] if piece.md5 else []
    if any(COLLECTION in piece.where for piece in left):
        lines.append(f"  or {collected(dataset.dataset_dir)}, all in one, from {COLLECTION}")
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("datasets", nargs="+", metavar="DATASET", help="name, or stem of the yaml")
    parser.add_argument("--root", required=True, type=Path, help="folder of all data sets")
    parser.add_argument(
        "--archives",
        type=Path,
        help="folder with archives that you have; what is fetched goes there, too "
        "(default: the data set's folder)",
    )
    parser.add_argument(
        "--mirror", default="", help="address of a folder with split files and class lists"
    )
    parser.add_argument("--keep", action="store_true", help="keep fetched archives")
    return parser.parse_args(argv)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Prepare; a mistake of the user's ends in one sentence and exit code 2."""
    args = parse_args(argv)
    root, complete = args.root.expanduser().absolute(), True
    for word in args.datasets:
        name = find_name(word)
        if name not in benchmarks():
            raise ValueError(
                f"{name} needs no preparation; those that do: {', '.join(benchmarks())}."
            )
        dataset = benchmarks()[name]
        folder = root / dataset.dataset_dir
        archives = args.archives.expanduser().absolute() if args.archives else folder
        left = prepare(name, dataset, Places(folder, archives, args.mirror, args.keep))
        if left:
            print(instructions(name, dataset, left))
            complete = False
    if complete:
        print(f"\nCheck with: python tools/check_data.py {' '.join(args.datasets)} --root {root}")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
