"""Grouping pictures and drawing a few of each class."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Protocol, TypeVar

__all__ = ["group_by", "sample_shots"]


class _Labelled(Protocol):
    @property
    def label(self) -> int: ...


ItemT = TypeVar("ItemT", bound=_Labelled)


def group_by(items: Iterable[ItemT], attribute: str) -> dict[int, list[ItemT]]:
    """Group pictures by one of their attributes; its values in the order of first appearance."""
    groups: dict[int, list[ItemT]] = {}
    for item in items:
        groups.setdefault(getattr(item, attribute), []).append(item)
    return groups


def sample_shots(items: Iterable[ItemT], num_shots: int, repeat: bool) -> list[ItemT]:
    """Draw ``num_shots`` pictures of each class with Python's global generator.

    One draw per class, classes in the order of first appearance. A class with fewer pictures gives
    all of them without a draw, or with ``repeat`` is drawn from with replacement.
    """
    drawn: list[ItemT] = []
    for members in group_by(items, "label").values():
        if len(members) >= num_shots:
            drawn.extend(random.sample(members, num_shots))
        elif repeat:
            drawn.extend(random.choices(members, k=num_shots))
        else:
            drawn.extend(members)
    return drawn
