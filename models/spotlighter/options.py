"""The options of a Spotlighter head, checked together."""

from __future__ import annotations

from dataclasses import dataclass

from models.spotlighter.memory import NEW_CLASSES

HEADS = ("lite", "full")
SCORES = ("attention", "similarity")
SELECTS = ("both", "sample", "semantic", "random")
TOKENS = ("value", "raw", "adapter")


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """What defines a head; see docs/method.md for each symbol."""

    num_keep: int = 5
    level1: int = 3
    num_prototypes: int = 5
    momentum: float = 1.0
    alpha: float = 0.2
    num_candidates: int = 5
    tau_proto: float = 0.1
    tau_attn: float = 0.1
    tau_inherit: float = 0.3
    head: str = "lite"
    sharpness: float = 30.0
    levels: tuple[float, ...] = (1.0, 1 / 3, 1 / 3, 1 / 3)
    select: str = "both"
    score: str = "attention"
    tokens: str = "value"
    new: str = "inherit"

    def problems(self) -> list[str]:
        """Everything that is wrong with these options, a sentence each."""
        choices = (
            ("HEAD", self.head, HEADS),
            ("SELECT", self.select, SELECTS),
            ("SCORE", self.score, SCORES),
            ("TOKENS", self.tokens, TOKENS),
            ("NEW", self.new, NEW_CLASSES),
        )
        found = [
            f"{key} must be one of {', '.join(allowed)}, got {value!r}"
            for key, value, allowed in choices
            if value not in allowed
        ]
        counts = {"TOPK": self.num_keep, "LEVEL1": self.level1, "CANDIDATES": self.num_candidates}
        found += [f"{k} must be at least 1, got {v}" for k, v in counts.items() if v < 1]
        if self.num_prototypes < self.num_keep:
            found.append(
                f"PROTOTYPES must not be below TOPK, got {self.num_prototypes} < {self.num_keep}"
            )
        if not 0 <= self.momentum <= 1:
            found.append(f"MOMENTUM must lie in 0..1, got {self.momentum}")
        if len(self.levels) != 4:
            found.append(
                "LEVELS must be four numbers (global, 1, 2, both), got " + str(self.levels)
            )
        if self.sharpness <= 0:
            found.append(f"SHARPNESS must be above 0, got {self.sharpness}")
        taus = {"PROTO": self.tau_proto, "ATTN": self.tau_attn, "INHERIT": self.tau_inherit}
        found += [f"TAU_{k} must be above 0, got {v}" for k, v in taus.items() if v <= 0]
        return found
