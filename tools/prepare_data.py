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

import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/prepare_data.py`
from datasets.base import FewShotDataset, Published
from datasets.benchmarks import look_up
from datasets.folder import CLASS_LIST, read_class_names
from datasets.mat_file import read_mat
from datasets.pictures import find
from datasets.splits import read_json, read_split, read_text
from models.clip.fetch import require_checksum
from tools.data import sources
from tools.data.sources import COLLECTION, Piece, benchmarks
from tools.data.unpack import is_archive, scratch_beside, unpack
from tools.shared.command_line import parser_of, reports_user_errors

CLASSES = 1000  # of ImageNet
DEVKIT = "ILSVRC2012_devkit_t12"


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
        pieces, left = sources.read_sources()[self.name], []
        if not all(map(self.has, pieces)):
            self.unpack_whole(pieces[0])
        for piece in pieces:
            state = self.get(piece)
            left += [piece] if state.startswith("missing") else []
            print(f"{self.name}: {', '.join(piece.gives)}: {state}")
        has_split = self.dataset.split_file and (self.folder / self.dataset.split_file).is_file()
        return [piece for piece in left if not (piece.raw and has_split)]

    def has(self, piece: Piece) -> bool:
        """Return whether all that a piece gives is in place."""
        return all(is_there(self.folder / path) for path in piece.gives)

    def find(self, file: str) -> Path | None:
        """Return where the user has a file; ImageNet's class list serves its variants."""
        shared = [self.folder.parent / "imagenet"] if file == CLASS_LIST else []
        folders = [self.archives, self.folder, *shared]
        return next((folder / file for folder in folders if (folder / file).is_file()), None)

    def unpack_whole(self, piece: Piece) -> None:
        """Unpack the collection's archive if the user has it; Caltech's own has the same name."""
        archive = self.find(sources.collected(self.dataset.dataset_dir))
        start = f"{self.folder.name}/{piece.gives[0]}/"
        if archive is None or not zipfile.is_zipfile(archive):
            return
        with zipfile.ZipFile(archive) as opened:
            if not any(name.startswith(start) for name in opened.namelist()):
                return
        print(f"{self.name}: unpacking {archive}")
        with scratch_beside(self.folder) as scratch:
            unpack(archive, scratch / "whole")
            for entry in sorted((scratch / "whole" / self.folder.name).iterdir()):
                settle(entry, self.folder / entry.name)

    def get(self, piece: Piece) -> str:
        """Find or fetch a piece and put it in its place; returns its state, as "done"."""
        if self.has(piece):
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
        sources.download(piece, target, self.mirror)
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
            whole = sources.collected(self.dataset.dataset_dir)
            lines.append(f"  or {whole}, all in one, from {COLLECTION}")
        return "\n".join(lines)


def is_there(path: Path) -> bool:
    """Return whether a path is a file, or a folder with something in it."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def settle(source: Path, target: Path) -> None:
    """Move something to its place, unless something is there."""
    if is_there(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target.rmdir()
    source.rename(target)


def put(piece: Piece, source: Path, folder: Path) -> None:
    """Unpack an archive, or copy a file, into a data set's folder; existing parts stay."""
    with scratch_beside(folder) as scratch:  # then moved: what has its name is complete
        if not piece.moves:
            settle(Path(shutil.copy(source, scratch)), folder / piece.file)
        elif piece.sorter:
            sort = {"train": sort_train, "val": sort_val}[piece.sorter]
            settle(sort(source, scratch), folder / piece.gives[0])
        else:
            unpack(source, scratch / "whole")
            for inside, target in piece.moves:
                settle(dig(scratch / "whole", inside, source), folder / target)


def dig(path: Path, inside: str, source: Path) -> Path:
    """Return the path `inside` what `source` held, unpacking archives on the way to it."""
    held = ", ".join(sorted(entry.name for entry in path.iterdir())) or "nothing"
    for name in Path(inside).parts:
        path = path / name
        if not path.exists():
            raise ValueError(f"{source} lacks {inside}; at its top it holds {held}.")
        if is_archive(path):
            nested = path.with_name(f"{path.name}.unpacked")
            unpack(path, nested)
            path = nested
    return path


def require_content(dataset: type[FewShotDataset], path: Path) -> None:
    """Refuse a split file or a class list with other content, as a server's error page."""
    found = expected = None
    try:
        if path.name == CLASS_LIST:
            found, expected = f"{len(read_class_names(path))} classes", f"{CLASSES} classes"
        elif path.name == dataset.split_file and dataset.published:
            splits = read_split(path, path.parent)
            found = Published(len(splits.names()), *map(len, splits[:3]))
            expected = dataset.published
        elif path.suffix == ".json":
            read_json(path)
        if found != expected:
            raise ValueError(f"{found}, expected {expected}")
    except ValueError as error:
        raise ValueError(f"{path} is not the published file: {error}; fetch it anew.") from None


def sort_train(archive: Path, scratch: Path) -> Path:
    """Unpack ImageNet's tar of a tar for each class; returns the folder of the class folders."""
    folder = scratch / "train"
    with tarfile.open(archive) as outer:
        for member in outer:
            inner = outer.extractfile(member)
            if inner is None or not member.name.endswith(".tar"):
                expected = "expected a tar file a class, n01440764.tar"
                raise ValueError(f"{archive} holds {member.name!r}; {expected}.")
            unpack(inner, folder / Path(member.name).stem, member.name)
    return folder


def sort_val(archive: Path, scratch: Path) -> Path:
    """Unpack ImageNet's validation pictures into class folders, by the labels of the kit beside."""
    devkit = archive.with_name(f"{DEVKIT}.tar.gz")
    if not devkit.is_file():
        raise FileNotFoundError(f"{devkit} is missing; it says which class each picture has.")
    unpack(archive, scratch / "heap")
    unpack(devkit, scratch / "kit")
    meta = scratch / "kit" / DEVKIT / "data" / "meta.mat"
    wnids = {}
    for row in read_mat(meta, "synsets", {"ILSVRC2012_ID": int, "WNID": str}):
        if not re.fullmatch(r"n\d+", row["WNID"]):
            raise ValueError(f"{meta} names the class {row['WNID']!r}; expected one as n01440764.")
        wnids[str(row["ILSVRC2012_ID"])] = row["WNID"]
    truth = meta.with_name("ILSVRC2012_validation_ground_truth.txt")
    labels, pictures = read_text(truth).split(), find(scratch / "heap").pictures
    if len(pictures) != len(labels):
        held = f"{archive} holds {len(pictures)} pictures"
        raise ValueError(f"{held}, but {devkit} has labels for {len(labels)}.")
    for picture, label in zip(pictures, labels, strict=True):
        place = scratch / "val" / look_up(wnids, label, truth)
        place.mkdir(parents=True, exist_ok=True)
        picture.rename(place / picture.name)
    return scratch / "val"


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Prepare; a user's mistake ends in one sentence and exit code 2."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("datasets", nargs="+", metavar="DATASET", help="name, or stem of the yaml")
    add("--root", required=True, type=Path, help="folder of all data sets")
    meaning = "folder of your archives, and of fetched ones (default: the data set's folder)"
    add("--archives", type=Path, help=meaning)
    add("--mirror", default="", help="address of a folder with split files and class lists")
    add("--keep", action="store_true", help="keep fetched archives")
    args, known, code = parser.parse_args(argv), benchmarks(), 0
    root = args.root.expanduser().absolute()
    for name in map(sources.find_name, args.datasets):
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
