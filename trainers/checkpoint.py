"""Find a checkpoint, see whether it fits, load it. A wrong one is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dassl.utils import load_checkpoint
from torch import nn

# Buffers that published checkpoints hold and that follow from the class names.
DERIVED = ("token_prefix", "token_suffix")


def find_checkpoint(
    directory: str | Path, name: str, epoch: int | None = None, *, last: bool = False
) -> Path:
    """The file to load: that epoch's, else model-best, else the one `checkpoint` points to.

    Args:
        directory: `--model-dir`.
        name: folder of the registered model, as prompt_learner.
        epoch: `--load-epoch`.
        last: take the one `checkpoint` points to, to go on training.

    Raises:
        FileNotFoundError: says what is there.
    """
    folder = Path(directory) / name
    wanted = [f"model.pth.tar-{epoch}"] if epoch else ["model-best.pth.tar"][last:]
    pointer = folder / "checkpoint"
    if not epoch and pointer.is_file():
        wanted.append(pointer.read_text(encoding="utf-8").strip())
    for file in wanted:
        if (folder / file).is_file():
            return folder / file
    found = sorted(path.name for path in folder.glob("model*.pth.tar*"))
    raise FileNotFoundError(
        f"no checkpoint {' or '.join(wanted)} in {folder}; found: {', '.join(found) or 'none'} "
        "(--model-dir, --load-epoch)"
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, without the buffers that follow from class names."""
    saved = load_checkpoint(str(path))
    if not isinstance(saved, dict) or "state_dict" not in saved:
        raise ValueError(f"{path} is not a checkpoint of this family: it has no state_dict")
    state = saved["state_dict"]
    saved["state_dict"] = {k: v for k, v in state.items() if k.split(".")[-1] not in DERIVED}
    return saved


def check_identity(
    saved: dict[str, Any], expected: dict[str, Any], path: Path, keys: tuple[str, ...]
) -> None:
    """Compare what a checkpoint says of itself; published ones say nothing and pass.

    Raises:
        ValueError: names the first thing that differs.
    """
    identity = saved.get("identity") or {}
    for key in keys:
        if key not in identity or identity[key] == expected[key]:
            continue
        got, want = _short(identity[key]), _short(expected[key])
        raise ValueError(
            f"the checkpoint {path} was written with {key} {got}, and this run has {want}; "
            "choose another --model-dir (or --output-dir), or the settings it was trained with"
        )


def load_into(module: nn.Module, saved: dict[str, Any], path: Path) -> None:
    """Copy a checkpoint's weights, all of them or none.

    Raises:
        ValueError: keys or shapes do not fit.
    """
    state = saved["state_dict"]
    own = module.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    wrong = [
        f"{name} is {tuple(state[name].shape)} there and {tuple(parameter.shape)} here"
        for name, parameter in module.named_parameters()
        if name in state and state[name].shape != parameter.shape
    ]
    wrong += [f"it lacks {', '.join(missing)}"] if missing else []
    wrong += [f"it has also {', '.join(extra)}"] if extra else []
    if wrong:
        raise ValueError(
            f"the checkpoint {path} does not fit this trainer and config: {'; '.join(wrong)}"
        )
    before = {name: value.clone() for name, value in own.items() if hasattr(value, "clone")}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        module.load_state_dict(before, strict=False)
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"the checkpoint {path} does not fit this config: {reason}") from error


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 4:
        return f"[{', '.join(map(str, value[:3]))}, ... {len(value)} in all]"
    return str(value)
