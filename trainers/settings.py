"""One frozen dataclass a trainer: the keys of its config node, their defaults and their checks."""

import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple, TypeVar

from yacs.config import CfgNode

logger = logging.getLogger(__name__)

PRECISIONS = ("fp32", "fp16", "amp", "bf16")
MAX_WORDS = 4  # the tuners with deep prompts start longer contexts at random

S = TypeVar("S", bound="Settings")


class BuildContext(NamedTuple):
    """What a model may depend on beside CLIP, the class names and its own settings."""

    cfg: CfgNode
    dataset: Any


@dataclass(frozen=True)
class Settings:
    """Keys under `TRAINER.<NODE>` that every trainer has: the upper-cased names of the fields."""

    PREC: str = "fp16"
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = ()  # keys that a trained model does not depend on
    UNUSED: ClassVar[tuple[str, ...]] = ()  # keys that nothing reads; published configs hold them

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong; subclasses add theirs."""
        return self.one_of(PRECISIONS, "PREC")

    def of_the_model(self) -> list[str]:
        """Keys that the predictions of a trained model depend on, beyond rounding."""
        keys = [f.name.upper() for f in fields(self)]
        return [key for key in keys if key not in ("PREC", *self.TRAINING_ONLY)]

    def at_least(self, least: int, *keys: str) -> list[str]:
        """A sentence for each of the keys whose value is below `least`."""
        values = {key: getattr(self, key) for key in keys}
        return [f"{k} must be at least {least:g}, got {v}" for k, v in values.items() if v < least]

    def one_of(self, known: Collection[str], key: str) -> list[str]:
        """A sentence if the value of a key is none of the known ones."""
        value = getattr(self, key)
        wrong = f"{key} must be one of {', '.join(known)}, got {value!r}"
        return [] if value in known else [wrong]


def add_settings(cfg: CfgNode, node: str, settings: type[Settings]) -> None:
    """Add `TRAINER.<node>` with the dataclass's defaults."""
    defaults = asdict(settings())
    cfg.TRAINER[node] = CfgNode({name.upper(): value for name, value in defaults.items()})


def read_settings(cfg: CfgNode, node: str, settings: type[S]) -> S:
    """The settings of `TRAINER.<node>`; a ValueError names every problem at once."""
    values = cfg.TRAINER[node]
    found = settings(**{f.name: values[f.name.upper()] for f in fields(settings)})
    if problems := found.problems():
        raise ValueError(f"TRAINER.{node}: " + "; ".join(problems))
    return found


def log_unused_context(node: str, settings: Settings, learned: int | None) -> None:
    """Log that CTX_INIT overrules N_CTX and CSC; `learned`: number of context vectors, or None."""
    words, asked = getattr(settings, "CTX_INIT", ""), getattr(settings, "N_CTX", learned)
    class_specific = getattr(settings, "CSC", False)
    unused = [f"N_CTX {asked}"] * (asked != learned) + ["CSC True"] * class_specific
    if not words or not unused:
        return
    is_meant = class_specific or asked != getattr(type(settings), "N_CTX", asked)
    logger.log(
        logging.WARNING if is_meant else logging.INFO,
        "Learned parameters start from the words %r: %s vectors, shared by all classes; "
        "not used from TRAINER.%s: %s",
        *(words, learned, node, ", ".join(unused)),
    )


def context_of_words(n_ctx: int, ctx_init: str) -> dict[str, Any]:
    """Read N_CTX and CTX_INIT as MaPLe and its relatives do, as options of a `PromptLearner`.

    All words of CTX_INIT stand in the prompt, and the first N_CTX of them are learned (MaPLe learns
    "a photo" of "a photo of a"). A context of more than 4 vectors starts at random.
    """
    if ctx_init and n_ctx <= MAX_WORDS:
        return {"ctx_init": ctx_init, "learned_words": n_ctx}
    if ctx_init:
        logger.warning(
            "A context of %d vectors starts at random: words (CTX_INIT %r) start up to %d, as "
            "published",
            *(n_ctx, ctx_init, MAX_WORDS),
        )
    return {"n_ctx": n_ctx}
