"""Read files that torch wrote: nothing is run, checksums are compared, sizes are checked first.

torch itself compares no checksum, unpacks what is packed, and gives a tensor any size that its file
claims. Here a file of a few megabytes never becomes gigabytes.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.serialization import safe_globals

SPARE = 2**26  # bytes that the content may have beyond twice the size of its file
VALUES = 10**6  # most values in a file; one that is named twice counts twice
DEPTH = 50  # most containers within one another
# Schedulers and optimisers, which published checkpoints pickle beside their tensors.
INERT = re.compile(r"(\w+\.optim\.[\w.]+)\.(\w+)")
KINDS = 20  # most classes of that kind in a file


class _Inert:
    """The attributes of an object that a file pickled, without its code."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _empty_dict(*_: Any) -> dict[Any, Any]:
    """Stand for `collections.defaultdict`, which an optimiser keeps its state in."""
    return {}


# torch matches what a file names with "<__module__>.<__qualname__>" of what is allowed.
_empty_dict.__module__ = "collections"
_empty_dict.__name__ = _empty_dict.__qualname__ = "defaultdict"


def read_plain(path: Path) -> Any:
    """What `torch.save` wrote: dense tensors on the CPU, numbers, texts and containers of them.

    Schedulers that published projects pickled come back as dictionaries. Raises ValueError if the
    file is damaged, holds anything else, or holds more than fits into it.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\3\4"  # what torch before 1.6 wrote has no checksums
    if is_zip:
        require_whole(path)
    return _Plain(path)(_load(path, is_zip))


def _load(path: Path, is_zip: bool) -> Any:
    allowed: list[Any] = [dict, _empty_dict]
    while True:
        try:
            with safe_globals(allowed):
                # mapped, not read: no tensor reaches beyond the file
                return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        except MemoryError:
            raise
        except Exception as error:  # a foreign file may make the reader stumble anywhere
            named = re.search(r"GLOBAL (\S+)", str(error))
            if not named:
                raise ValueError(
                    f"{path} cannot be read as a file written by torch.save; is it complete?"
                ) from error
            harmless = INERT.fullmatch(named[1])
            if not harmless or len(allowed) > KINDS:
                raise ValueError(
                    f"{path} is refused, because it pickles {named[1]}: a file of weights or a "
                    "checkpoint may hold tensors, numbers, texts and schedulers only"
                ) from error
            module, name = harmless.groups()
            allowed.append(type(name, (_Inert,), {"__module__": module}))


def require_whole(path: Path, *, packed: bool = False) -> None:
    """Raise ValueError if a zip is damaged or too large; `packed` allows compressed parts."""
    problem = ""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if sum(part.file_size for part in parts) > _bound(path):
                size = path.stat().st_size
                problem = f"refused: its {size:,} bytes would become many times as many"
            elif not packed and any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                problem = "refused: its parts are compressed, which torch.save never does"
            elif broken := archive.testzip():
                problem = f"damaged: the checksum of its part {broken} is wrong; is it complete?"
    except Exception as error:  # names, sizes and places in the archive may all be wrong
        raise ValueError(
            f"{path} is damaged: its table of contents cannot be read; is it complete?"
        ) from error
    if problem:
        raise ValueError(f"{path} is {problem}")


def _bound(path: Path) -> int:
    """The bytes that the content of a file may have."""
    return 2 * path.stat().st_size + SPARE


class _Plain:
    """Copy the content of a file, no larger than it, as tensors, dictionaries, lists and tuples."""

    def __init__(self, path: Path) -> None:
        self.path, self.bytes, self.values = path, _bound(path), VALUES

    def __call__(self, value: Any, depth: int = 0) -> Any:
        self.values -= 1
        if self.values < 0 or depth > DEPTH:
            raise ValueError(f"{self.path} is refused: it holds too many values within values")
        if isinstance(value, Tensor):
            return self._copy(value)
        if isinstance(value, _Inert):  # a scheduler points to its optimiser, which is saved apart
            value = {k: v for k, v in vars(value).items() if k != "optimizer"}
        if isinstance(value, dict):
            return {key: self(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            items = [self(item, depth + 1) for item in value]
            return items if isinstance(value, list) else tuple(items)
        return value

    def _copy(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor, once its size is known to be that of its data."""
        if not is_dense(tensor):
            raise ValueError(
                f"{self.path} is refused: it holds a tensor that is sparse, quantised or empty of "
                "data, and only dense ones are read"
            )
        size = tensor.numel() * tensor.element_size()
        self.bytes -= size
        if size > tensor.untyped_storage().nbytes() or self.bytes < 0:
            raise ValueError(
                f"{self.path} is refused: a tensor of shape {tuple(tensor.shape)} has more values "
                "than the file"
            )
        return tensor.detach().clone()


def is_dense(value: Any) -> bool:
    """Whether something is an ordinary tensor, with data."""
    is_strided = type(value) in (Tensor, nn.Parameter) and value.layout == torch.strided
    return is_strided and value.device.type == "cpu" and not value.is_quantized


def not_finite(table: Mapping[str, Any]) -> list[str]:
    """The names of tensors with an infinite value, or with one that is no number."""
    return [n for n, v in table.items() if isinstance(v, Tensor) and not torch.isfinite(v).all()]
