"""Trainers, one file for each method. Importing this package registers them all with Dassl."""

from importlib import import_module
from pkgutil import iter_modules

from runs.config import extend_cfg
from trainers.base import CLIPTrainer, trainer_names

_modules = [import_module(found.name) for found in iter_modules(__path__, f"{__name__}.")]
TRAINERS = tuple(
    value
    for module in _modules
    for value in vars(module).values()
    if isinstance(value, type)
    and issubclass(value, CLIPTrainer)
    and value.__module__ == module.__name__
    and value.__name__ in trainer_names()
)

__all__ = ["TRAINERS", "extend_cfg"]
