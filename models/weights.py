"""Weights in a file of any known format -> tensors under the names of OpenAI's `clip` modules.

Formats: OpenAI's TorchScript archives, tables of tensors that torch or safetensors wrote, and
checkpoints of open_clip's training. Only the first can run code while it is read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.download import digest_of
from models.loading import VOCABULARY, import_clip

Table = dict[str, Tensor]
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
BATCHES = "num_batches_tracked"  # of a BatchNorm; some formats leave it out, and nothing reads it


def read_weights(path: Path, *, trust: bool = False) -> Table:
    """The tensors of a file, float32, by the names that `clip.model.CLIP` gives them.

    Args:
        path: of the file.
        trust: read a TorchScript archive even if OpenAI did not publish it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, is not to be read, or holds no table of tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there are no weights at {path} (--weights)")
    if path.suffix == ".safetensors":
        saved = _read_safetensors(path)
    elif _is_torchscript(path):
        saved = _read_torchscript(path, trust)
    else:
        saved = _read_table(path)
    return plain_names(saved, path)


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{path} needs the package safetensors ({error}); "
            "install it with: pip install -r requirements-open_clip.txt"
        ) from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors ({error}); fetch it anew") from None


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_torchscript(path: Path, trust: bool) -> Any:
    clip = import_clip()
    published = {url.split("/")[-2] for url in clip.clip._MODELS.values()}
    if not trust and (found := digest_of(path)) not in published:
        raise ValueError(
            f"{path} has SHA-256 {found[:12]}..., which is none of those that OpenAI published; it "
            "is not loaded, because TorchScript can run code: pass --trust-weights if you know "
            "who made it"
        )
    try:
        model, _ = clip.load(str(path), device="cpu", jit=False)
    except (RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"{path} cannot be read as OpenAI's CLIP ({reason})") from error
    return model.state_dict()


def _read_table(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign or damaged file may make the reader stumble anywhere
        raise ValueError(
            f"{path} cannot be read as a table of tensors: it is damaged, or holds more than "
            "tensors, numbers and texts, which could run code"
        ) from error


def plain_names(saved: Any, path: Path) -> Table:
    """The table of tensors in what a file holds, under plain names.

    Raises:
        ValueError: there is none.
    """
    rows = saved.get("vocab_rows") if isinstance(saved, Mapping) else None
    if isinstance(saved, Mapping) and "state_dict" in saved:
        saved = saved["state_dict"]
    tensors = isinstance(saved, Mapping) and all(isinstance(v, Tensor) for v in saved.values())
    if not tensors or not saved:
        raise ValueError(f"{path} holds no table of tensors by name, so no weights of a CLIP")
    for prefix in ("module.", "_orig_mod."):  # of a model that several GPUs, or a compiler, held
        if all(name.startswith(prefix) for name in saved):
            saved = {name.removeprefix(prefix): value for name, value in saved.items()}
    table = {
        name.removeprefix("text."): value.float() if value.is_floating_point() else value
        for name, value in saved.items()
        if name.split(".")[-1] not in NOT_WEIGHTS
    }
    if "logit_scale" in table:
        table["logit_scale"] = table["logit_scale"].reshape(())
    if rows is not None:
        table["token_embedding.weight"] = full_vocabulary(table["token_embedding.weight"], rows)
    return table


def full_vocabulary(trained: Tensor, rows: Tensor) -> Tensor:
    """Embeddings of all tokens (V, W) from those of `rows`; the others are zeros."""
    vocabulary = trained.new_zeros(VOCABULARY, trained.shape[1])
    vocabulary[rows] = trained
    return vocabulary


def put_weights(model: nn.Module, table: Table, path: Path, name: str) -> nn.Module:
    """Copy all weights into a model, or none.

    Raises:
        ValueError: names or shapes are not those of the model.
    """
    own = model.state_dict()
    table = {key: value for key, value in own.items() if key.endswith(BATCHES)} | table
    if wrong := misfits(own, table, own):
        raise ValueError(
            f"the weights in {path} are not those of {name} (MODEL.BACKBONE.NAME): "
            f"{'; '.join(wrong)}"
        )
    model.load_state_dict(table)
    return model


def misfits(own: Mapping[str, Any], there: Mapping[str, Any], shaped: Iterable[str]) -> list[str]:
    """How a table differs from a model's own, a phrase each.

    Args:
        own: of the model.
        there: of a file.
        shaped: the names whose shapes must agree.
    """
    wrong = [
        f"{name} is {tuple(there[name].shape)} there and {tuple(own[name].shape)} here"
        for name in shaped
        if name in there and there[name].shape != own[name].shape
    ]
    if len(wrong) > 4:
        wrong = [f"{'; '.join(wrong[:3])}, ... {len(wrong)} in all"]
    missing, extra = sorted(own.keys() - there.keys()), sorted(there.keys() - own.keys())
    wrong += [f"it lacks {some(missing)}"] if missing else []
    return wrong + ([f"it has also {some(extra)}"] if extra else [])


def some(names: list[str]) -> str:
    """A list for a sentence; a long one by its beginning."""
    if len(names) <= 4:
        return ", ".join(names)
    return f"{', '.join(names[:3])}, ... {len(names)} in all"
