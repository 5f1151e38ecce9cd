"""Names of a package that are imported when one is first asked for: torch takes a second."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from dassl.left_out import NAMES, refusal


def late_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package: of ``homes`` each module has some of its names.

    Names of upstream that are left out are refused, see ``left_out``.
    """
    home_of = {name: module for module, names in homes.items() for name in names.split()}

    def find(name: str) -> Any:
        if name in home_of:
            found = getattr(import_module(f"{package}.{home_of[name]}"), name)
            setattr(sys.modules[package], name, found)
            return found
        if name in homes:
            return import_module(f"{package}.{name}")
        if name in NAMES.get(package, "").split():
            raise ImportError(refusal(f"{package}.{name}"), name=package)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
