"""FGVC-Aircraft: its own lists of pictures take the place of a split file."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY, Datum

from datasets.base import FewShotDataset, Published
from datasets.division import items_of
from datasets.raw import look_up, read_rows
from datasets.splits import SPLITS, Splits, read_text


@DATASET_REGISTRY.register()
class FGVCAircraft(FewShotDataset):
    """100 variants of aircraft (Maji et al., 2013); labels are the line numbers of variants.txt.

    Raises:
        FileNotFoundError: variants.txt or one of images_variant_{train,val,test}.txt is missing.
        ValueError: a list names a variant that variants.txt does not hold.
    """

    dataset_dir = "fgvc_aircraft"
    image_dir = "images"
    raw_files = ("variants.txt", *(f"images_variant_{split}.txt" for split in SPLITS))
    published = Published(classes=100, train=3334, val=3333, test=3333)

    def read_splits(self) -> Splits:
        """Return the items in the order of the lists."""
        names = [name.strip() for name in read_text(self.folder / "variants.txt").splitlines()]
        labels = {name: label for label, name in enumerate(names)}
        train, val, test = (self._read_list(split, labels) for split in SPLITS)
        return Splits(train, val, test, names)

    def _read_list(self, split: str, labels: dict[str, int]) -> list[Datum]:
        path, items = self.folder / f"images_variant_{split}.txt", []
        for picture, name in read_rows(path, "picture variant"):
            label = look_up(labels, name, path)
            items += items_of([self.image_folder / f"{picture}.jpg"], label, name)
        return items
