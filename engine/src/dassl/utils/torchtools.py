"""Checkpoints, which are written whole or not at all, and other helpers for models."""

import io
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from dassl.utils.safe_load import load_plain
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = [
    "choose_device", "count_num_param", "load_checkpoint", "load_pretrained_weights",
    "resume_from_checkpoint", "save_checkpoint",
]

logger = logging.getLogger(__name__)

BEST = "model-best.pth.tar"
POINTER = "checkpoint"  # text file that names the newest checkpoint of its folder


def _without_prefix(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the ``module.`` that nn.DataParallel puts before each name."""
    return {name.removeprefix("module."): value for name, value in state_dict.items()}


def _write_atomically(content: bytes | memoryview, fpath: Path) -> None:
    """Write a file whole or not at all, even if the machine stops in between."""
    unfinished = fpath.with_name(f".{fpath.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(fpath)
        folder = os.open(fpath.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name is on the disk as well
        finally:
            os.close(folder)
    except OSError as error:
        error.filename = str(fpath)  # a failed write does not name the file
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def save_checkpoint(
    state: Mapping[str, Any], save_dir: str | Path, is_best: bool = False,
    remove_module_from_keys: bool = True, model_name: str = "",
) -> None:
    """Write a checkpoint, and its name into the text file ``checkpoint`` beside it.

    ``state`` has at least ``state_dict`` and ``epoch`` (epochs done). The file is ``model_name`` or
    ``model.pth.tar-<epoch>``; ``is_best`` writes ``model-best.pth.tar`` as well. A leading
    ``module.`` of parameter names is dropped, unless ``remove_module_from_keys`` is off.
    """
    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    state = dict(state)
    if remove_module_from_keys:
        state["state_dict"] = _without_prefix(state["state_dict"])
    fpath = folder / (model_name or f"model.pth.tar-{state['epoch']}")
    packed = io.BytesIO()  # torch itself reports a full disk as an internal error
    torch.save(state, packed)
    _write_atomically(packed.getbuffer(), fpath)
    logger.info("Checkpoint saved to %s", fpath)
    _write_atomically(f"{fpath.name}\n".encode(), folder / POINTER)
    if is_best:
        _write_atomically(packed.getbuffer(), folder / BEST)


def load_checkpoint(fpath: str | Path) -> Any:
    """Read a checkpoint, tensors on the CPU; schedulers come back as dictionaries.

    Raises ValueError if the file is not a checkpoint, is damaged, or pickles foreign objects;
    FileNotFoundError if there is no such file.
    """
    if not fpath:
        raise ValueError("load_checkpoint needs the path of a file, got none")
    if not Path(fpath).is_file():
        raise FileNotFoundError(f'No checkpoint at "{fpath}"')
    return load_plain(fpath)


def load_strictly(model: nn.Module, state_dict: Mapping[str, Any], source: str | Path) -> None:
    """Load parameters that must fit exactly, else a ValueError; ``source`` is for its message."""
    try:
        model.load_state_dict(state_dict)
    except RuntimeError as error:
        problems = " ".join(line.strip() for line in str(error).splitlines()[1:])
        raise ValueError(f"{source} does not fit {type(model).__name__}: {problems}") from error


def resume_from_checkpoint(
    fdir: str | Path, model: nn.Module, optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
) -> int:
    """Restore from the newest checkpoint of a folder, and return the number of epochs done.

    Raises FileNotFoundError if the folder has no checkpoint; ValueError if the checkpoint does not
    fit.
    """
    pointer = Path(fdir) / POINTER
    if not pointer.is_file():
        raise FileNotFoundError(f'No text file "{POINTER}" in {fdir}; nothing to resume from')
    fpath = Path(fdir) / pointer.read_text(encoding="utf-8").strip()
    logger.info("Loading checkpoint from %s", fpath)
    checkpoint = load_checkpoint(fpath)
    load_strictly(model, checkpoint["state_dict"], fpath)
    if optimizer is not None and checkpoint.get("optimizer") is not None:
        optimizer.load_state_dict(checkpoint["optimizer"])
    if scheduler is not None and checkpoint.get("scheduler") is not None:
        scheduler.load_state_dict(checkpoint["scheduler"])
    epoch: int = checkpoint["epoch"]
    logger.info("Previous epoch: %d", epoch)
    return epoch


def load_pretrained_weights(model: nn.Module, weight_path: str | Path) -> None:
    """Load the parameters that match in name and shape, of a checkpoint or a state dict's file."""
    checkpoint = load_checkpoint(weight_path)
    found = _without_prefix(checkpoint.get("state_dict", checkpoint))
    own = model.state_dict()
    matched = {k: v for k, v in found.items() if k in own and own[k].shape == v.shape}
    discarded = [name for name in found if name not in matched]
    if not matched:
        logger.warning("Nothing in %s matches the model; it is left as it is", weight_path)
        return
    model.load_state_dict({**own, **matched})
    logger.info("Loaded %d of %d layers from %s", len(matched), len(own), weight_path)
    if discarded:
        logger.warning("Discarded, because name or shape differ: %s", discarded)


def count_num_param(
    model: nn.Module | None = None, params: Iterable[nn.Parameter] | None = None
) -> int:
    """Count the scalars in a model, or in parameters; a ValueError if neither is given."""
    if model is not None:
        params = model.parameters()
    if params is None:
        raise ValueError("count_num_param needs a model or parameters, got neither")
    return sum(p.numel() for p in params)


def choose_device(use_cuda: bool = True) -> torch.device:
    """Choose the device: CUDA, else MPS, else CPU; always CPU if ``use_cuda`` is off."""
    if use_cuda and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if use_cuda and torch.backends.mps.is_available() else "cpu")
