"""Modules and names of upstream that are left out; importing one says where it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["MODULES", "NAMES", "refuse_modules", "refuse_names"]

MODULES = (
    *(f"dassl.engine.{kind}" for kind in ("da", "dg", "ssl")),
    *(f"dassl.data.datasets.{kind}" for kind in ("da", "dg", "ssl")),
    "dassl.modeling.ops",
)
NAMES = {
    "dassl.engine": "AdaBN ADDA CDAC DAEL DANN M3SDA MCD MME SelfEnsembling SourceOnly CrossGrad "
    "DAELDG DDAIG DomainMix Vanilla EntMin FixMatch MeanTeacher MixMatch SupBaseline",
    "dassl.data.datasets": "CIFARSTL Digit5 DomainNet miniDomainNet Office31 OfficeHome VisDA17 "
    "CIFAR10C CIFAR100C DigitsDG DigitSingle OfficeHomeDG PACS VLCS Camelyon17 FMoW IWildCam "
    "CIFAR10 CIFAR100 STL10 SVHN",
}


def _refusal(name: str) -> str:
    return (
        f"{name} is not in this engine, which leaves out domain adaptation, domain generalisation "
        "and semi-supervised learning; install upstream for it: "
        "https://github.com/KaiyangZhou/Dassl.pytorch"
    )


class _Finder:
    """The last finder that an import asks, where no other has found the module."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name in MODULES:
            raise ModuleNotFoundError(_refusal(name), name=name)


def refuse_modules() -> None:
    """Have the import of a module in MODULES fail with a sentence that names upstream."""
    if _Finder not in sys.meta_path:
        sys.meta_path.append(_Finder)


def refuse_names(module: str) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a module: its names in NAMES fail with such a sentence."""

    def refuse(name: str) -> Any:
        if name in NAMES[module].split():
            raise ImportError(_refusal(f"{module}.{name}"), name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return refuse
