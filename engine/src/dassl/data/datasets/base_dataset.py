"""A labelled picture, a data set of them, and few-shot sampling."""

import logging
import os
import random
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, TypeVar

__all__ = ["DatasetBase", "Datum"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


def group_by(items: Iterable[T], key: Callable[[T], int]) -> dict[int, list[T]]:
    """Group items by a key; keys in the order of first appearance."""
    groups: dict[int, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _read_only(attribute: str, doc: str) -> Any:
    return property(attrgetter(attribute), doc=doc)


class Datum:
    """One picture: its path, label, domain and class name.

    Upstream's pickled few-shot caches name this module and the private attributes. Raises
    FileNotFoundError if there is no file at the path.
    """

    impath: str = _read_only("_impath", "Path of the picture.")
    label: int = _read_only("_label", "Class, counted from 0.")
    domain: int = _read_only("_domain", "Domain, counted from 0.")
    classname: str = _read_only("_classname", "Name of the class.")

    def __init__(
        self, impath: str | os.PathLike[str] = "", label: int = 0, domain: int = 0,
        classname: str = "",
    ) -> None:
        if not os.path.isfile(impath):  # noqa: PTH113 - called a million times
            raise FileNotFoundError(
                f"No picture at {os.fspath(impath)!r}; check DATASET.ROOT and the list of pictures"
            )
        self._impath = os.fspath(impath)
        self._label, self._domain, self._classname = label, domain, classname

    def __repr__(self) -> str:
        place = f"impath={self._impath!r}, label={self._label}, domain={self._domain}"
        return f"Datum({place}, classname={self._classname!r})"


class DatasetBase:
    """The parts of a data set; the labelled training pictures ``train_x`` define the classes.

    Raises ValueError if there are no labelled training pictures.
    """

    dataset_dir: str = ""  # folder under DATASET.ROOT

    train_x: list[Datum] = _read_only("_train_x", "Labelled training pictures.")
    train_u: list[Datum] | None = _read_only("_train_u", "Unlabelled training pictures.")
    val: list[Datum] | None = _read_only("_val", "Validation pictures.")
    test: list[Datum] | None = _read_only("_test", "Test pictures.")
    lab2cname: dict[int, str] = _read_only("_lab2cname", "Class name by label.")
    classnames: list[str] = _read_only("_classnames", "Class names in the order of their labels.")
    num_classes: int = _read_only("_num_classes", "Largest training label plus 1.")

    def __init__(
        self, train_x: list[Datum] | None = None, train_u: list[Datum] | None = None,
        val: list[Datum] | None = None, test: list[Datum] | None = None,
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
        """Draw ``num_shots`` pictures of each class (below 1: all), from each source in turn.

        One draw per class from Python's global generator, classes in the order of first appearance:
        this fixes the few-shot subsets of the literature. A class with fewer pictures gives all it
        has, without a draw; with ``repeat``, ``num_shots`` drawn with replacement.

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
