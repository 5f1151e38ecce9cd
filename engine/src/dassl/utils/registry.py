"""Registries: classes and functions by name."""

import logging
from functools import partial
from typing import Any

from dassl.utils.tools import check_availability

__all__ = ["Registry", "build_registered"]

logger = logging.getLogger(__name__)


class Registry:
    """Objects by name; ``@REGISTRY.register()`` or ``REGISTRY.register(obj)`` adds one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._obj_map: dict[str, Any] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._obj_map

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Register a class or function under its ``__name__``, and return it (or a decorator).

        Raises KeyError if the name is taken and ``force``, which replaces it, is off.
        """
        if obj is None:
            return partial(self.register, force=force)
        if obj.__name__ in self._obj_map and not force:
            raise KeyError(
                f"{obj.__name__!r} is already registered in {self._name}; "
                "choose another name or pass force=True to replace it"
            )
        self._obj_map[obj.__name__] = obj
        return obj

    def get(self, name: str) -> Any:
        """Return the object of a name; a KeyError if there is none."""
        if name not in self._obj_map:
            raise KeyError(
                f"{name!r} is not registered in {self._name}; available: {self.registered_names()}"
            )
        return self._obj_map[name]

    def registered_names(self) -> list[str]:
        """Return the names, in the order of registration."""
        return list(self._obj_map)


def build_registered(
    registry: Registry, kind: str, name: str, verbose: bool = True, *args: Any, **kwargs: Any
) -> Any:
    """Build the object of a name from ``args`` and ``kwargs``; ``kind`` is for messages.

    Raises ValueError if nothing of that name is registered.
    """
    check_availability(name, registry.registered_names(), kind)
    if verbose:
        logger.info("Loading %s: %s", kind, name)
    return registry.get(name)(*args, **kwargs)
