"""The embedded benchmark: seven data sets of emoji pictures, each as colour and as line art.

Nothing is downloaded: the first use of a data set draws its pictures from OpenMoji's font (CC BY-SA
4.0) and writes them below DATASET.ROOT.
"""

from __future__ import annotations

from itertools import product

from dassl.data.datasets import DATASET_REGISTRY

from datasets.base import FewShotDataset
from datasets.emoji_files import IMAGE_DIR, ensure_dataset
from datasets.emoji_pictures import DOMAINS
from datasets.emoji_sets import SETS


class EmojiDataset(FewShotDataset):
    """Emoji in front of clutter, drawn on first use.

    Attributes:
        set_name: which set of classes.
        domain: "colour", or "lineart" for dark outlines on white.
    """

    image_dir = IMAGE_DIR
    set_name: str
    domain: str

    def prepare(self) -> None:
        """Draw the pictures unless they are on disk."""
        ensure_dataset(self.folder, self.split_file, self.set_name, self.domain)


for _set, _domain in product(SETS, DOMAINS):  # EmojiAnimals, EmojiAnimalsLineart, ...
    _words = ("emoji", _set) if _domain == "colour" else ("emoji", _set, _domain)
    _name = "".join(map(str.title, _words))
    _declared = {
        "dataset_dir": "_".join(_words),
        "split_file": f"split_zhou_{_name}.json",
        "set_name": _set,
        "domain": _domain,
    }
    DATASET_REGISTRY.register(type(_name, (EmojiDataset,), _declared))
