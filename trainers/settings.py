"""One frozen dataclass a trainer: the keys of its config node, their defaults and their checks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from yacs.config import CfgNode

PRECISIONS = ("fp32", "fp16", "amp", "bf16")

S = TypeVar("S", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """Keys under `TRAINER.<NODE>` that every trainer has. Field names are the config's keys."""

    PREC: str = "fp16"

    def faults(self) -> list[str]:
        """Everything that is wrong, a sentence each; subclasses add theirs."""
        if self.PREC in PRECISIONS:
            return []
        return [f"PREC must be one of {', '.join(PRECISIONS)}, got {self.PREC!r}"]


def add_settings(cfg: CfgNode, node: str, settings: type[Settings]) -> None:
    """Add `TRAINER.<node>` with the dataclass's defaults."""
    cfg.TRAINER[node] = CfgNode(asdict(settings()))


def read_settings(cfg: CfgNode, node: str, settings: type[S]) -> S:
    """The settings of `TRAINER.<node>`, checked.

    Raises:
        ValueError: names every fault at once.
    """
    values: dict[str, Any] = {f.name: cfg.TRAINER[node][f.name] for f in fields(settings)}
    found = settings(**values)
    if faults := found.faults():
        raise ValueError(f"TRAINER.{node}: " + "; ".join(faults))
    return found
