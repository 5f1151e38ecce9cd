"""The embedded benchmark: seven data sets of emoji pictures, each as colour and as line art.

Nothing is downloaded: the first use of a data set draws its pictures from OpenMoji's font (CC BY-SA
4.0) and writes them below DATASET.ROOT.
"""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from datasets.base import FewShotDataset
from datasets.emoji_files import IMAGE_DIR, ensure_dataset


class EmojiDataset(FewShotDataset):
    """Pictures of emoji in front of clutter, drawn when they are first asked for.

    A subclass names its set of classes and its domain.
    """

    set_name: str
    domain: str

    def __init_subclass__(cls, set_name: str, domain: str = "colour") -> None:
        super().__init_subclass__()
        cls.set_name, cls.domain = set_name, domain
        cls.dataset_dir = f"emoji_{set_name}" + ("" if domain == "colour" else f"_{domain}")
        cls.image_dir = IMAGE_DIR
        cls.split_file = f"split_zhou_{cls.__name__}.json"

    def prepare(self) -> None:
        """Draw the pictures unless they are on disk."""
        ensure_dataset(self.folder, self.split_file, self.set_name, self.domain)


@DATASET_REGISTRY.register()
class EmojiAnimals(EmojiDataset, set_name="animals"):
    """Animals."""


@DATASET_REGISTRY.register()
class EmojiAnimalsLineart(EmojiDataset, set_name="animals", domain="lineart"):
    """Animals, as dark outlines on white."""


@DATASET_REGISTRY.register()
class EmojiFood(EmojiDataset, set_name="food"):
    """Fruit, vegetables, meals and sweets."""


@DATASET_REGISTRY.register()
class EmojiFoodLineart(EmojiDataset, set_name="food", domain="lineart"):
    """Fruit, vegetables, meals and sweets, as dark outlines on white."""


@DATASET_REGISTRY.register()
class EmojiTravel(EmojiDataset, set_name="travel"):
    """Vehicles and places to go to."""


@DATASET_REGISTRY.register()
class EmojiTravelLineart(EmojiDataset, set_name="travel", domain="lineart"):
    """Vehicles and places to go to, as dark outlines on white."""


@DATASET_REGISTRY.register()
class EmojiObjects(EmojiDataset, set_name="objects"):
    """Things about the house, the office and the workshop."""


@DATASET_REGISTRY.register()
class EmojiObjectsLineart(EmojiDataset, set_name="objects", domain="lineart"):
    """Things about the house, the office and the workshop, as dark outlines on white."""


@DATASET_REGISTRY.register()
class EmojiWear(EmojiDataset, set_name="wear"):
    """Things to wear and to play with."""


@DATASET_REGISTRY.register()
class EmojiWearLineart(EmojiDataset, set_name="wear", domain="lineart"):
    """Things to wear and to play with, as dark outlines on white."""


@DATASET_REGISTRY.register()
class EmojiFaces(EmojiDataset, set_name="faces"):
    """Faces and fantastic creatures."""


@DATASET_REGISTRY.register()
class EmojiFacesLineart(EmojiDataset, set_name="faces", domain="lineart"):
    """Faces and fantastic creatures, as dark outlines on white."""


@DATASET_REGISTRY.register()
class EmojiNature(EmojiDataset, set_name="nature"):
    """Plants, sky and weather."""


@DATASET_REGISTRY.register()
class EmojiNatureLineart(EmojiDataset, set_name="nature", domain="lineart"):
    """Plants, sky and weather, as dark outlines on white."""
