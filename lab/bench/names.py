"""Class names for timing: made up, but as long as those of a real data set."""

from __future__ import annotations

ADJECTIVES = (
    "red green blue black white brown grey golden silver dark bright small large tall tiny old "
    "young wild common spotted striped great little northern southern"
)
NOUNS = (
    "dog cat fox bear wolf horse bird eagle owl duck fish shark snake frog beetle spider ant bee "
    "butterfly lizard tree flower mushroom apple lemon bread cake bottle cup chair table lamp "
    "clock boat train truck bridge tower church castle"
)
MAX_CLASSES = len(ADJECTIVES.split()) * len(NOUNS.split())


def class_names(count: int) -> list[str]:
    """Distinct names, always the same; with "." and the end of text they have 4 to 5 tokens.

    Args:
        count: C, 1 to `MAX_CLASSES`.

    Raises:
        ValueError: there are not so many.
    """
    if not 1 <= count <= MAX_CLASSES:
        raise ValueError(f"--classes must lie in 1..{MAX_CLASSES}, got {count}")
    adjectives, nouns = ADJECTIVES.split(), NOUNS.split()
    found = []
    for i in range(count):
        times, noun = divmod(i, len(nouns))
        adjective = adjectives[(times + i) % len(adjectives)]
        found.append(f"{adjective}_{nouns[noun]}")
    return found
