"""Modules and names of upstream that are not here: importing one fails with a clear message."""

import sys
from typing import Any

PACKAGES = ("dassl.engine", "dassl.data.datasets")
MODULES = [f"{package}.{kind}" for package in PACKAGES for kind in ("da", "dg", "ssl")]
NAMES = {
    "dassl.engine": "AdaBN ADDA CDAC DAEL DANN M3SDA MCD MME SelfEnsembling SourceOnly CrossGrad "
    "DAELDG DDAIG DomainMix Vanilla EntMin FixMatch MeanTeacher MixMatch SupBaseline TrainerXU "
    "SimpleTrainer SimpleNet",
    "dassl.data.datasets": "CIFARSTL Digit5 DomainNet miniDomainNet Office31 OfficeHome VisDA17 "
    "CIFAR10C CIFAR100C DigitsDG DigitSingle OfficeHomeDG PACS VLCS Camelyon17 FMoW IWildCam "
    "CIFAR10 CIFAR100 STL10 SVHN",
}


def refusal(name: str) -> str:
    """Say that a name of upstream is not here, and where it is."""
    return (
        f"{name} is not in this engine, which leaves out domain adaptation, domain generalisation "
        "and semi-supervised learning; install upstream for it: "
        "https://github.com/KaiyangZhou/Dassl.pytorch"
    )


class _Finder:
    """A finder that an import asks when no other has found the module."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name in MODULES:
            raise ModuleNotFoundError(refusal(name), name=name)


def refuse_modules() -> None:
    """Make the import of a module in MODULES fail with a message that names upstream."""
    if _Finder not in sys.meta_path:
        sys.meta_path.append(_Finder)
