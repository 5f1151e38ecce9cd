"""The options of a Spotlighter head. A config key is the upper-cased name of a field.

Each symbol is explained in docs/method.md.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass

from models.spotlighter import LEVELS, NEW_CLASSES
from models.spotlighter.select import SCORES, SELECTS

CHOICES: dict[str, Collection[str]] = {
    "select": SELECTS,
    "score": SCORES,
    "tokens": ("value", "raw"),
    "new": NEW_CLASSES,
}


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """What defines a head."""

    topk: int = 5  # K, patches that are kept
    level1: int = 3  # of them in level 1
    prototypes: int = 16  # M, a class
    alpha: float = 0.2  # start of the text gains
    candidates: int = 5  # R, likely classes that stand in for the label
    tau_proto: float = 0.1
    tau_attn: float = 0.1
    tau_inherit: float = 0.3
    # Sample-wise: does this image depend on the patch? Semantic-wise: does it look like a class?
    select: str = "both"
    score: str = "attention"  # the sample-wise score
    tokens: str = "value"
    levels: tuple[str, ...] = LEVELS  # those whose weights are fitted; the others' stay 0
    new: str = "auto"  # what classes without training pictures get
    gate: bool = True  # False: the logits of the base

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        values = asdict(self)
        found = [
            f"{key.upper()} must be one of {', '.join(allowed)}, got {values[key]!r}"
            for key, allowed in CHOICES.items()
            if values[key] not in allowed
        ]
        for key in ("topk", "level1", "candidates"):
            if values[key] < 1:
                found.append(f"{key.upper()} must be at least 1, got {values[key]}")
        if self.prototypes < self.topk:
            found.append(f"PROTOTYPES must not be below TOPK, got {self.prototypes} < {self.topk}")
        if unknown := sorted(map(str, set(self.levels) - set(LEVELS))):
            found.append(f"LEVELS must name some of {', '.join(LEVELS)}, got {', '.join(unknown)}")
        for key in ("tau_proto", "tau_attn", "tau_inherit"):
            if values[key] <= 0:
                found.append(f"{key.upper()} must be above 0, got {values[key]}")
        return found
