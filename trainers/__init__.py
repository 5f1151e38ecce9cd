"""Trainers, one file for each method. Importing this package registers them all with Dassl."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from dassl.engine import TRAINER_REGISTRY

from runs.config import extend_cfg

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)

_registered: list[Any] = [TRAINER_REGISTRY.get(n) for n in TRAINER_REGISTRY.registered_names()]
TRAINERS = tuple(t for t in _registered if t.__module__.startswith(f"{__name__}."))

__all__ = ["TRAINERS", "extend_cfg"]
