"""The registry of evaluators."""

from typing import Any

from dassl.utils import Registry, build_registered
from yacs.config import CfgNode

__all__ = ["EVALUATOR_REGISTRY", "build_evaluator"]

EVALUATOR_REGISTRY = Registry("EVALUATOR")


def build_evaluator(cfg: CfgNode, **kwargs: Any) -> Any:
    """Build the evaluator that ``cfg.TEST.EVALUATOR`` names.

    Args:
        cfg: The whole config.
        kwargs: For the evaluator; Classification takes ``lab2cname``.

    Raises:
        ValueError: If no evaluator of that name is registered.
    """
    registry, name = EVALUATOR_REGISTRY, cfg.TEST.EVALUATOR
    return build_registered(registry, "evaluator", name, cfg.VERBOSE, cfg, **kwargs)
