"""Fetch and arrange data sets, or list the files to get by hand.

Usage:
    python tools/prepare_data.py OxfordPets dtd --root data
    python tools/prepare_data.py ImageNet --root data --archives ~/Downloads
    python tools/prepare_data.py EuroSAT --root data --mirror https://host/split_files

Fetched: Caltech101, OxfordPets, OxfordFlowers, Food101, FGVCAircraft, DescribableTextures, EuroSAT,
and every split file and class list. The other pictures have no reliable address, or need an
account: put their archives into --archives, and they are checked, unpacked and arranged. Existing
files stay as they are; repeat an interrupted command. Exit code 1: there are files to get by hand.
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
from models.clip.fetch import require_checksum
from tools.data.arrange import in_place, is_whole, put, put_whole, require_content
from tools.data.sources import (
    COLLECTION,
    Piece,
    benchmarks,
    collected,
    download,
    find_name,
    read_sources,
)
from tools.shared.command_line import parser_of, reports_user_errors


class Preparation(NamedTuple):
    """Puts the pieces of one data set in their places."""

    name: str  # DATASET.NAME
    dataset: type[FewShotDataset]
    folder: Path  # of the data set
    archives: Path  # the user's archives; others are fetched to here
    mirror: str  # address of a folder with split files and class lists; "" for Google Drive
    keep: bool  # fetched archives, after unpacking

    def run(self) -> list[Piece]:
        """Put every piece in its place; returns those to get by hand."""
        pieces, left = read_sources()[self.name], []
        whole = self.find(collected(self.dataset.dataset_dir))
        complete = all(in_place(piece, self.folder) for piece in pieces)
        if whole and not complete and is_whole(whole, self.folder.name, pieces[0]):
            print(f"{self.name}: unpacking {whole}")
            put_whole(whole, self.folder)
        for piece in pieces:
            state = self.get(piece)
            if state.startswith("missing"):
                left.append(piece)
            print(f"{self.name}: {', '.join(piece.gives)}: {state}")
        has_split = self.dataset.split_file and (self.folder / self.dataset.split_file).is_file()
        return [piece for piece in left if not (piece.raw and has_split)]

    def find(self, file: str) -> Path | None:
        """Return where the user has a file; ImageNet's class list serves its variants."""
        folders = [self.archives, self.folder]
        if file == CLASS_LIST:
            folders.append(self.folder.parent / "imagenet")
        return next((folder / file for folder in folders if (folder / file).is_file()), None)

    def get(self, piece: Piece) -> str:
        """Find or fetch a piece and put it in its place; returns its state, as "done"."""
        if in_place(piece, self.folder):
            return "in place"
        try:
            if source := self.find(piece.file):
                require_checksum(source, piece.md5, str(source))
                if not piece.moves:
                    require_content(self.dataset, source)
                put(piece, source, self.folder)
            elif piece.url or piece.drive:
                self.fetch(piece)
            else:
                return "missing"
        except OSError as error:  # of one server; go on with the other pieces
            return f"missing. {error}"
        return "done"

    def fetch(self, piece: Piece) -> None:
        """Download a piece to its place, or an archive, and unpack it."""
        target = (self.archives if piece.moves else self.folder) / piece.file
        download(piece, target, self.mirror)
        if piece.moves:
            put(piece, target, self.folder)
            if not self.keep:
                target.unlink()
            return
        try:
            require_content(self.dataset, target)
        except ValueError:
            target.unlink()
            raise

    def instructions(self, left: Sequence[Piece]) -> str:
        """Return the files to get, their addresses, and addresses not to try."""
        lines = [f"\n{self.name}: get these files and repeat the command with --archives FOLDER:"]
        for piece in left:
            lines += [f"  {piece.file}{' (only without the split file)' if piece.raw else ''}"]
            lines += [f"    from {place}" for place in piece.places]
            lines += [f"    dead: {address}" for address in piece.dead]
            lines += [f"    MD5 {piece.md5}"] if piece.md5 else []
        if any(COLLECTION in piece.where for piece in left):
            archive = collected(self.dataset.dataset_dir)
            lines.append(f"  or {archive}, all in one, from {COLLECTION}")
        return "\n".join(lines)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("datasets", nargs="+", metavar="DATASET", help="name, or stem of the yaml")
    add("--root", required=True, type=Path, help="folder of all data sets")
    archives = "folder of your archives, and of fetched ones (default: the data set's folder)"
    add("--archives", type=Path, help=archives)
    add("--mirror", default="", help="address of a folder with split files and class lists")
    add("--keep", action="store_true", help="keep fetched archives")
    return parser.parse_args(argv)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Prepare; a user's mistake ends in one sentence and exit code 2."""
    args, known, code = parse_args(argv), benchmarks(), 0
    root = args.root.expanduser().absolute()
    for name in map(find_name, args.datasets):
        if name not in known:
            raise ValueError(f"{name} needs no preparation; those that do: {', '.join(known)}.")
        folder = root / known[name].dataset_dir
        archives = args.archives.expanduser().absolute() if args.archives else folder
        preparation = Preparation(name, known[name], folder, archives, args.mirror, args.keep)
        if left := preparation.run():
            print(preparation.instructions(left))
            code = 1
    if not code:
        print(f"\nCheck with: python tools/check_data.py {' '.join(args.datasets)} --root {root}")
    return code


if __name__ == "__main__":
    sys.exit(main())
