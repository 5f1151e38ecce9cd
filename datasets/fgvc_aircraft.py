"""FGVC-Aircraft: its own lists of pictures take the place of a split file."""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, Datum

from datasets.base import FewShotDataset
from datasets.splits import Splits, read_text


@DATASET_REGISTRY.register()
class FGVCAircraft(FewShotDataset):
    """100 variants of aircraft (Maji et al., 2013); labels are the line numbers of variants.txt.

    Raises:
        FileNotFoundError: variants.txt or one of images_variant_{train,val,test}.txt is missing.
        ValueError: a list names a variant that variants.txt does not hold.
    """

    dataset_dir = "fgvc_aircraft"
    image_dir = "images"

    def read_splits(self) -> Splits:
        """Return the items in the order of the lists."""
        names = read_text(self.folder / "variants.txt").splitlines()
        labels = {name.strip(): label for label, name in enumerate(names)}
        return Splits(*(self._read_list(split, labels) for split in Splits._fields))

    def _read_list(self, split: str, labels: dict[str, int]) -> list[Datum]:
        path = self.folder / f"images_variant_{split}.txt"
        return [self._parse(line, labels, path) for line in read_text(path).splitlines()]

    def _parse(self, line: str, labels: dict[str, int], path: Path) -> Datum:
        picture, _, name = line.strip().partition(" ")
        if name not in labels:
            raise ValueError(
                f"{path} has the line {line!r}; expected a picture's number and, after a space, "
                "one of the variants in variants.txt."
            )
        impath = str(self.image_folder / f"{picture}.jpg")
        return Datum(impath=impath, label=labels[name], classname=name)
