"""The options of a Spotlighter head. A config key is the upper-cased name of a field.

Each symbol is explained in docs/method.md.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass

from models.spotlighter.memory import NEW_CLASSES
from models.spotlighter.select import SCORES, SELECTS

CHOICES: dict[str, Collection[str]] = {
    "head": ("lite", "full"),
    "select": SELECTS,
    "score": SCORES,
    "tokens": ("value", "raw", "adapter"),
    "new": NEW_CLASSES,
}


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """What defines a head."""

    topk: int = 5  # K, patches that are kept
    level1: int = 3  # of them in level 1
    prototypes: int = 5  # M, a class
    momentum: float = 1.0
    alpha: float = 0.2  # start of the text gains
    candidates: int = 5  # R, likely classes that stand in for the label
    tau_proto: float = 0.1
    tau_attn: float = 0.1
    tau_inherit: float = 0.3
    head: str = "lite"
    sharpness: float = 30.0  # logits of the levels per unit of similarity
    levels: tuple[float, ...] = (1.0, 1 / 3, 1 / 3, 1 / 3)  # starts: global, 1, 2, both
    # Sample-wise: does this image depend on the patch? Semantic-wise: does it look like a class?
    select: str = "both"
    score: str = "attention"  # the sample-wise score
    tokens: str = "value"
    new: str = "inherit"

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
        if not 0 <= self.momentum <= 1:
            found.append(f"MOMENTUM must lie in 0..1, got {self.momentum}")
        if len(self.levels) != 4:
            found.append(f"LEVELS must be four numbers (global, 1, 2, both), got {self.levels}")
        for key in ("sharpness", "tau_proto", "tau_attn", "tau_inherit"):
            if values[key] <= 0:
                found.append(f"{key.upper()} must be above 0, got {values[key]}")
        return found
