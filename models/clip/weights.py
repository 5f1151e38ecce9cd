"""Weights in a file of any known format -> tensors under the names of OpenAI's `clip` modules.

Formats: OpenAI's TorchScript archives, tables of tensors that torch or safetensors wrote, and
checkpoints of open_clip's training. Only the first can run code while it is read.
"""

import zipfile
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.clip.fetch import digest_of, require_checksum
from models.clip.openai import VOCABULARY, import_clip
from models.clip.plain_files import is_dense, not_finite, read_plain, require_whole

Table = dict[str, Tensor]
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
WIDEST = 4096  # width of a text tower whose vocabulary is filled up
BATCHES = "num_batches_tracked"  # of a BatchNorm; some formats leave it out, and nothing reads it


def read_weights(path: Path, *, trust: bool = False) -> Table:
    """The tensors of a file, float32, by the names that `clip.model.CLIP` gives them.

    `trust` reads a TorchScript archive even if OpenAI did not publish it. Raises FileNotFoundError
    if there is no such file, and ValueError if it cannot or may not be read, holds no table of
    tensors, or has another SHA-256 than FILE.sha256 beside it says.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there are no weights at {path} (--weights)")
    beside = path.with_name(f"{path.name}.sha256")  # as sha256sum writes it
    words = beside.read_text("utf-8", "replace").split() if beside.is_file() else []
    require_checksum(path, words[0].lower() if words else "", str(path), "sha256")
    if path.suffix == ".safetensors":
        saved = _read_safetensors(path)
    elif zipfile.is_zipfile(path) and _holds_code(path):
        saved = _read_torchscript(path, trust)
    else:
        saved = read_plain(path)
    return _plain_names(saved, path)


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


def _holds_code(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_torchscript(path: Path, trust: bool) -> Any:
    published = {url.split("/")[-2] for url in import_clip().clip._MODELS.values()}
    if not trust and (found := digest_of(path)) not in published:
        raise ValueError(
            f"{path} has SHA-256 {found[:12]}..., which is none of those that OpenAI published; it "
            "is not loaded, because TorchScript can run code: pass --trust-weights if you know "
            "who made it"
        )
    return open_published(path).state_dict()


def open_published(path: Path) -> nn.Module:
    """The model in a file of OpenAI's, its digest checked before; ValueError if damaged."""
    if zipfile.is_zipfile(path):
        require_whole(path, packed=True)
    try:
        model, _ = import_clip().load(str(path), device="cpu", jit=False)
    except (RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"{path} cannot be read as OpenAI's CLIP ({reason})") from error
    _require_finite(model.state_dict(), path)
    return model.float().eval()


def _require_finite(table: Mapping[str, Any], path: Path) -> None:
    if wrong := not_finite(table):
        raise ValueError(
            f"{path} holds infinite numbers, or what is no number, in {some(wrong)}; fetch it anew"
        )


def _plain_names(saved: Any, path: Path) -> Table:
    """The table of tensors in what a file holds, without the prefixes of wrappers."""
    rows = saved.get("vocab_rows") if isinstance(saved, Mapping) else None
    if isinstance(saved, Mapping) and "state_dict" in saved:
        saved = saved["state_dict"]
    tensors = isinstance(saved, Mapping) and all(
        isinstance(name, str) and is_dense(value) for name, value in saved.items()
    )
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
        trained = table.get("token_embedding.weight")
        table["token_embedding.weight"] = _full_vocabulary(trained, rows, path)
    return table


def _full_vocabulary(trained: Tensor | None, rows: Any, path: Path) -> Tensor:
    """Embeddings of all tokens (V, W) from those of `rows`; the others are zeros."""
    if trained is None or trained.dim() != 2 or trained.shape[1] > WIDEST or not is_dense(rows):
        raise ValueError(f"{path} has vocab_rows, and no token_embedding.weight that they fit")
    known = rows.dtype == torch.int64 and rows.shape == trained.shape[:1]
    if not known or (rows < 0).any() or (rows >= VOCABULARY).any():
        raise ValueError(f"{path} has vocab_rows that are not the tokens of its embeddings")
    vocabulary = trained.new_zeros(VOCABULARY, trained.shape[1])
    vocabulary[rows] = trained
    return vocabulary


def put_weights(model: nn.Module, table: Table, path: Path, name: str) -> nn.Module:
    """Copy all weights into a model, or none.

    Raises ValueError if names, shapes or kinds of number are not the model's, or not finite.
    """
    own = model.state_dict()
    table = {key: value for key, value in own.items() if key.endswith(BATCHES)} | table
    if wrong := misfits(own, table, own):
        raise ValueError(
            f"the weights in {path} are not those of {name} (MODEL.BACKBONE.NAME): "
            f"{'; '.join(wrong)}"
        )
    _require_finite(table, path)
    model.load_state_dict(table)
    return model


def misfits(own: Mapping[str, Any], there: Mapping[str, Any], shaped: Container[str]) -> list[str]:
    """How a file's table differs from a model's, a phrase each; shapes, of the names `shaped`."""
    wrong = [
        f"{name} is {differ[0]} there and {differ[1]} here"
        for name in own
        if name in there and (differ := _difference(there[name], own[name], name in shaped))
    ]
    wrong = [some(wrong, "; ")] if wrong else []
    missing, extra = sorted(own.keys() - there.keys()), sorted(there.keys() - own.keys())
    wrong += [f"it lacks {some(missing)}"] if missing else []
    return wrong + ([f"it has also {some(extra)}"] if extra else [])


def _difference(there: Any, own: Any, shaped: bool) -> tuple[Any, Any] | None:
    """Types, kinds of number, or shapes of two values, if they differ."""
    if not isinstance(there, Tensor) or not isinstance(own, Tensor):
        pair: tuple[Any, Any] = (type(there).__name__, type(own).__name__)
    elif there.dtype != own.dtype and not (there.is_floating_point() and own.is_floating_point()):
        pair = (there.dtype, own.dtype)
    else:
        pair = (tuple(there.shape), tuple(own.shape)) if shaped else ((), ())
    return pair if pair[0] != pair[1] else None


def some(names: list[str], separator: str = ", ") -> str:
    """A list for a sentence; a long one by its beginning."""
    if len(names) > 4:
        names = [*names[:3], f"... {len(names)} in all"]
    return separator.join(names)
