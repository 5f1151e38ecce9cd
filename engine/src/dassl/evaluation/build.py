"""The registry of evaluators."""

import logging
from typing import Any

from dassl.utils import Registry, check_availability
from yacs.config import CfgNode

__all__ = ["EVALUATOR_REGISTRY", "build_evaluator"]

logger = logging.getLogger(__name__)

EVALUATOR_REGISTRY = Registry("EVALUATOR")


def build_evaluator(cfg: CfgNode, **kwargs: Any) -> Any:
    """Build the evaluator that ``cfg.TEST.EVALUATOR`` names.

    Args:
        cfg: The whole config.
        kwargs: For the evaluator; Classification takes ``lab2cname``.

    Raises:
        ValueError: If no evaluator of that name is registered.
    """
    name = cfg.TEST.EVALUATOR
    check_availability(name, EVALUATOR_REGISTRY.registered_names(), "evaluator")
    if cfg.VERBOSE:
        logger.info("Loading evaluator: %s", name)
    return EVALUATOR_REGISTRY.get(name)(cfg, **kwargs)
