"""A labelled picture, a data set of them, and few-shot sampling."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

__all__ = ["DatasetBase", "Datum"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


def group_by(items: Iterable[T], key: Callable[[T], int]) -> dict[int, list[T]]:
    """Group items by a key; keys in the order of first appearance."""
    groups: dict[int, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


class Datum:
    """One picture: its path, label, domain and class name.

    Upstream's pickled few-shot caches name this module and the private attributes.

    Args:
        impath: Path of the picture.
        label: Class, counted from 0.
        domain: Domain, counted from 0.
        classname: Name of the class.

    Raises:
        FileNotFoundError: If there is no file at the path.
    """

    def __init__(
        self,
        impath: str | os.PathLike[str] = "",
        label: int = 0,
        domain: int = 0,
        classname: str = "",
    ) -> None:
        if not os.path.isfile(impath):  # noqa: PTH113 - called a million times
            raise FileNotFoundError(
                f"No picture at {os.fspath(impath)!r}; check DATASET.ROOT and the list of pictures"
            )
        self._impath = os.fspath(impath)
        self._label = label
        self._domain = domain
        self._classname = classname

    def __repr__(self) -> str:
        place = f"impath={self._impath!r}, label={self._label}, domain={self._domain}"
        return f"Datum({place}, classname={self._classname!r})"

    @property
    def impath(self) -> str:
        """Path of the picture."""
        return self._impath

    @property
    def label(self) -> int:
        """Class, counted from 0."""
        return self._label

    @property
    def domain(self) -> int:
        """Domain, counted from 0."""
        return self._domain

    @property
    def classname(self) -> str:
        """Name of the class."""
        return self._classname


class DatasetBase:
    """The parts of a data set: labelled, unlabelled, validation and test pictures.

    Args:
        train_x: Labelled training pictures; they define the classes.
        train_u: Unlabelled training pictures.
        val: Validation pictures.
        test: Test pictures.

    Raises:
        ValueError: If there are no labelled training pictures.
    """

    dataset_dir: str = ""  # folder under DATASET.ROOT

    def __init__(
        self,
        train_x: list[Datum] | None = None,
        train_u: list[Datum] | None = None,
        val: list[Datum] | None = None,
        test: list[Datum] | None = None,
    ) -> None:
        if not train_x:
            raise ValueError(
                f"{type(self).__name__} has no labelled training pictures (train_x is empty); "
                "they define the classes"
            )
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = self.get_num_classes(train_x)
        self._lab2cname, self._classnames = self.get_lab2cname(train_x)

    @property
    def train_x(self) -> list[Datum]:
        """Labelled training pictures."""
        return self._train_x

    @property
    def train_u(self) -> list[Datum] | None:
        """Unlabelled training pictures."""
        return self._train_u

    @property
    def val(self) -> list[Datum] | None:
        """Validation pictures."""
        return self._val

    @property
    def test(self) -> list[Datum] | None:
        """Test pictures."""
        return self._test

    @property
    def lab2cname(self) -> dict[int, str]:
        """Class name by label."""
        return self._lab2cname

    @property
    def classnames(self) -> list[str]:
        """Class names in the order of their labels."""
        return self._classnames

    @property
    def num_classes(self) -> int:
        """Largest training label plus 1."""
        return self._num_classes

    @staticmethod
    def get_num_classes(data_source: Iterable[Datum]) -> int:
        """Return the largest label plus 1."""
        return max(item.label for item in data_source) + 1

    @staticmethod
    def get_lab2cname(data_source: Iterable[Datum]) -> tuple[dict[int, str], list[str]]:
        """Return the class name by label, and the class names in the order of their labels."""
        mapping = {item.label: item.classname for item in data_source}
        mapping = {label: mapping[label] for label in sorted(mapping)}
        return mapping, list(mapping.values())

    def generate_fewshot_dataset(
        self, *data_sources: list[Datum], num_shots: int = -1, repeat: bool = False
    ) -> list[Datum] | Sequence[list[Datum]]:
        """Draw the same number of pictures of each class, from each source in turn.

        One draw per class from Python's global generator, classes in the order of first appearance:
        this fixes the few-shot subsets of the literature.

        Args:
            data_sources: Lists of pictures, each sampled on its own.
            num_shots: Pictures per class; below 1: the sources are returned as they are.
            repeat: Draw with replacement from a class with fewer pictures than ``num_shots``;
                otherwise such a class gives all it has, without a draw.

        Returns:
            A list of pictures for one source, a sequence of lists for several.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        logger.info("Creating a %d-shot dataset", num_shots)
        output = [self._sample_shots(source, num_shots, repeat) for source in data_sources]
        return output[0] if len(output) == 1 else output

    def _sample_shots(self, source: list[Datum], num_shots: int, repeat: bool) -> list[Datum]:
        drawn: list[Datum] = []
        for members in self.split_dataset_by_label(source).values():
            if len(members) >= num_shots:
                drawn.extend(random.sample(members, num_shots))
            elif repeat:
                drawn.extend(random.choices(members, k=num_shots))
            else:
                drawn.extend(members)
        return drawn

    @staticmethod
    def split_dataset_by_label(data_source: Iterable[Datum]) -> dict[int, list[Datum]]:
        """Group pictures by label, in the order of first appearance."""
        return group_by(data_source, lambda item: item.label)
