"""Kinds of rules for the value of a config key: what fits, and how a sentence says it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

MOST = 1_000_000  # largest count: of epochs, pictures in a batch, megabytes


class Rule(NamedTuple):
    """What a value must be, as a test and as a phrase."""

    fits: Callable[[Any], bool]
    expected: str


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and not True or False."""
    return type(value) in (int, float) and math.isfinite(value)


def is_list(value: Any) -> bool:
    """Whether it is a list or a tuple."""
    return isinstance(value, (list, tuple))


def _span(least: float, most: float) -> str:
    if most < math.inf:
        return f" from {least:g} to {most:.10g}"
    return f" from {least:g} on" if least > -math.inf else ""


def number(least: float = -math.inf, most: float = math.inf, *, below: float = math.inf) -> Rule:
    """One finite number from `least` to `most`, and below `below`."""
    limit = f", below {below:g}" if below < math.inf else ""
    expected = f"a number{_span(least, most)}{limit}"
    return Rule(lambda v: is_number(v) and least <= v <= most and v < below, expected)


def whole(least: int = 0, most: int = MOST) -> Rule:
    """One whole number from `least` to `most`."""
    expected = f"a whole number{_span(least, most)}"
    return Rule(lambda v: type(v) is int and least <= v <= most, expected)


def share() -> Rule:
    """A number from 0 to 1, as a probability."""
    return number(0, 1)


def numbers(count: int | None, each: Rule) -> Rule:
    """A list of `count` values, or of any number of them, that fit one rule each."""
    kind = each.expected.removeprefix("a ").replace("number", "numbers", 1)

    def fits(value: Any) -> bool:
        return is_list(value) and count in (None, len(value)) and all(map(each.fits, value))

    return Rule(fits, f"{'a list of' if count is None else count} {kind}")


def choice(names: Iterable[str]) -> Rule:
    """One of some names."""
    known = tuple(names)
    return Rule(lambda v: isinstance(v, str) and v in known, f"one of {', '.join(known)}")


def choices(names: Iterable[str]) -> Rule:
    """A list of some names."""
    known = tuple(names)
    return Rule(
        lambda v: is_list(v) and all(x in known for x in v), f"a list of {', '.join(known)}"
    )


def text() -> Rule:
    """Any text that can name a file."""
    return Rule(lambda v: isinstance(v, str) and "\0" not in v, "a text")


def path_in_utf8() -> Rule:
    """A path whose name is UTF-8; TensorBoard writes to no other."""

    def fits(value: Any) -> bool:
        return text().fits(value) and value.encode("utf-8", "replace").decode() == value

    return Rule(fits, "a path in UTF-8")


def one_line() -> Rule:
    """Words on one line that can name a folder."""
    return Rule(
        lambda v: isinstance(v, str) and v.isprintable() and "/" not in v,
        "one line without a slash",
    )


def flag() -> Rule:
    """True or False."""
    return Rule(lambda v: type(v) is bool, "True or False")


def words() -> Rule:
    """Words to start a learned context from, or none."""

    def fits(value: Any) -> bool:
        if not isinstance(value, str) or any(mark in value for mark in ("{", "}", "<|")):
            return False
        return not value or bool(value.replace("_", " ").strip())

    return Rule(fits, 'words without { and }, as "a photo of a", or ""')


def odd() -> Rule:
    """The edge of a kernel."""
    return Rule(lambda v: type(v) is int and 1 <= v <= 999 and v % 2 == 1, "odd, from 1 to 999")


def rising(each: Rule) -> Rule:
    """Two numbers, the second not below the first."""
    two = numbers(2, each)
    return Rule(lambda v: two.fits(v) and v[0] <= v[1], f"{two.expected}, the smaller one first")


def only(wanted: Any) -> Rule:
    """The default alone: nothing reads the key."""
    return Rule(lambda v: v == wanted and v is not None, f"{wanted!r}: nothing here reads it")
