"""Read checkpoints without executing anything they name.

Upstream's checkpoints pickle a scheduler object, and with it an optimiser. ``torch.load`` with
``weights_only=True`` refuses those. Here each class that such checkpoints name is replaced by an
inert class of the same name, which only holds what the file says; then it becomes a dictionary.
"""

import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.serialization import safe_globals

__all__ = ["load_plain"]

INERT_CLASSES = {
    "dassl.optim.lr_scheduler": "ConstantWarmupScheduler LinearWarmupScheduler",
    "dassl.optim.radam": "RAdam PlainRAdam AdamW",
    "torch.optim.lr_scheduler": "CosineAnnealingLR ExponentialLR MultiStepLR StepLR",
    "torch.optim.sgd": "SGD", "torch.optim.adam": "Adam", "torch.optim.adamw": "AdamW",
    "torch.optim.radam": "RAdam", "torch.optim.rmsprop": "RMSprop",
}


class _Inert:
    """Holds the attributes of an object that a checkpoint pickled."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _empty_dict(*_: Any) -> dict[Any, Any]:
    """Replace ``collections.defaultdict``, in which an optimiser keeps its state."""
    return {}


# torch compares what a file names with "<__module__>.<__qualname__>" of what is allowed.
_empty_dict.__module__ = "collections"
_empty_dict.__name__ = _empty_dict.__qualname__ = "defaultdict"

_ALLOWED: list[Any] = [dict, _empty_dict]
_ALLOWED += [
    type(name, (_Inert,), {"__module__": module})
    for module, names in INERT_CLASSES.items()
    for name in names.split()
]


def _plain(value: Any) -> Any:
    """Turn inert objects into dictionaries, without the optimiser that a scheduler points to."""
    if isinstance(value, _Inert):
        return {k: _plain(v) for k, v in vars(value).items() if k != "optimizer"}
    if isinstance(value, dict) and any(isinstance(v, (_Inert, dict)) for v in value.values()):
        plain = {k: _plain(v) for k, v in value.items()}
        return plain if type(value) is dict else type(value)(plain)
    return value


def load_plain(fpath: str | Path) -> Any:
    """Read a file written by ``torch.save``, tensors on the CPU, without executing its content.

    It may hold tensors, numbers, texts, containers of them, and the scheduler objects of upstream's
    checkpoints, which come back as dictionaries. Raises ValueError if the file pickles anything
    else, is damaged, or is not a checkpoint.
    """
    with Path(fpath).open("rb") as file:
        if damage := _damage(file):
            raise ValueError(f"{fpath} is damaged: {damage}; is it complete?")
        file.seek(0)
        try:
            with safe_globals(_ALLOWED):
                content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a foreign file may raise anything in the reader
            raise ValueError(_refusal(fpath, error)) from error
    return _plain(content)


def _damage(file: BinaryIO) -> str | None:
    """Return what is wrong with an archive; torch does not compare its checksums."""
    if file.read(4) != b"PK\3\4":
        return None  # written by a torch of long ago, or no checkpoint
    try:
        with zipfile.ZipFile(file) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                return "its parts are compressed, which torch.save never does"
            part = archive.testzip()
    except Exception:  # names, sizes and places in the archive may all be wrong
        return "its table of contents cannot be read"
    return part and f"the checksum of its part {part} is wrong"


def _refusal(fpath: str | Path, error: Exception) -> str:
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named is None:
        return f"{fpath} cannot be read as a checkpoint written by torch.save; is it complete?"
    return (
        f"{fpath} is refused, because it pickles {named.group(1)}: a checkpoint may hold tensors, "
        "numbers, texts and schedulers only; if you trust its author, name it in "
        "torch.serialization.add_safe_globals before loading"
    )
