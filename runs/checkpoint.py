"""Find, read and load a checkpoint. A wrong one is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.clip.plain_files import not_finite, read_plain
from models.clip.weights import misfits
from runs.identity import WHY, short

BEST = "model-best.pth.tar"
POINTER = "checkpoint"  # text file that names the newest checkpoint of its folder
# Filled from the training pictures, not learned in steps.
STATISTICS = ("head.memory.", "pruner.", "base.pruner.", "tuner.pruner.")
# Buffers of published checkpoints that follow from the class names.
DERIVED = ("token_prefix", "token_suffix", "token_prefix2", "token_suffix2", "tokenized_prompts")


def selected_by(path: Path, epoch: int | None) -> str:
    """What chose the epoch of a checkpoint: best_val, last_step or load_epoch."""
    if path.name == BEST:
        return "best_val"
    return "last_step" if epoch is None else "load_epoch"


def numbered(folder: Path) -> list[Path]:
    """The checkpoints of a folder that are named by their epoch, newest first."""
    paths = [p for p in folder.glob("model.pth.tar-*") if p.name.rpartition("-")[2].isdecimal()]
    return sorted(paths, key=number_of, reverse=True)


def number_of(path: Path) -> float:
    """The epoch in a checkpoint's name; infinite for one without, as the best."""
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else float("inf")


def pointed_to(folder: Path) -> str:
    """The name in the file `checkpoint`; "" without that file."""
    path = folder / POINTER
    return path.read_text("utf-8", "replace").strip() if path.is_file() else ""


def find_checkpoint(directory: str | Path, name: str, epoch: int | None = None) -> Path:
    """The file to load: that epoch's, else model-best, else the one `checkpoint` points to.

    It lies in the folder `name` (as prompt_learner) of a run's.

    Raises:
        FileNotFoundError: lists what is there.
    """
    folder = Path(directory) / name
    wanted = [BEST] if epoch is None else [f"model.pth.tar-{epoch}"]
    if epoch is None and (newest := pointed_to(folder)):
        wanted.append(newest)
    for file in wanted:
        if (folder / file).is_file():
            return folder / file
    found = sorted(path.name for path in folder.glob("model*.pth.tar*"))
    beside = {p.parent.name for p in Path(directory).glob("*/model*.pth.tar*")} - {name}
    hint = f", but there is a folder {', '.join(sorted(beside))} of another trainer" * bool(beside)
    raise FileNotFoundError(
        f"no checkpoint {' or '.join(wanted)} in {folder}; found: {', '.join(found) or 'none'}"
        f"{hint} (--model-dir, --load-epoch)"
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, without the buffers that follow from class names.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, is none of this family, or holds what is no number.
    """
    saved = read_plain(path)
    fault = "it has no state_dict or epoch"
    if isinstance(saved, dict) and {"state_dict", "epoch"} <= saved.keys():
        odd = misformed(saved, FORM)
        fault = f"its {odd} is of another form" if odd else ""
    if fault:
        raise ValueError(f"{path} is not a checkpoint of this family: {fault}")
    state = saved["state_dict"]
    if wrong := not_finite(state):
        raise ValueError(f"{path} holds infinite numbers, or what is no number, in {short(wrong)}")
    saved["state_dict"] = {k: v for k, v in state.items() if k.split(".")[-1] not in DERIVED}
    return saved


def misformed(value: Any, form: Any, name: str = "content") -> str:
    """The name of the part of plain data that is not of a form; "" if all of it is.

    Args:
        value: plain data.
        form: a type or a test; a tuple of forms, one of which must fit; [form of each item];
            {type of all keys: form of all values}; {key: form of its value}, where keys may lack.
        name: of the value.
    """
    if isinstance(form, tuple):
        faults = [misformed(value, one, name) for one in form]
        return "" if "" in faults else faults[-1]
    if not isinstance(form, (list, dict)):
        fits = type(value) is form if isinstance(form, type) else form(value)
        return "" if fits else name
    if type(value) is not type(form):
        return name
    if isinstance(form, list):
        parts = [(place, item, form[0]) for place, item in enumerate(value)]
    else:
        parts = _entries(value, form)
    faults = [misformed(part, one, f"{name}.{key}") for key, part, one in parts]
    return next(filter(None, faults), "")


def _entries(value: Any, form: dict[Any, Any]) -> list[tuple[Any, Any, Any]]:
    (first, inner), *_ = form.items()
    if isinstance(first, type):
        keys = [(f"key {str(key)[:20]}", key, first) for key in value]
        return keys + [(key, item, inner) for key, item in value.items()]
    return [(key, value[key], one) for key, one in form.items() if key in value]


def is_plain(value: Any) -> bool:
    """Whether something is a number, a text, or a container of those."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def is_count(value: Any) -> bool:
    """Whether something is a number of epochs."""
    return type(value) is int and 0 <= value < 2**31


NONE = type(None)
# What a checkpoint holds; one of another project has some of it. `resume.restore` checks shapes.
FORM = {
    "state_dict": {str: (Tensor, {"class_names": [str]})},
    "epoch": is_count,
    "best_epoch": is_count,
    "val_result": (NONE, int, float),
    "identity": dict.fromkeys(WHY, is_plain)
    | {"config": {str: is_plain}, "version": {str: is_plain}, "class_names": [str]},
    "optimizer": (NONE, {"state": {int: {str: (NONE, int, float, Tensor)}}}),
    "scheduler": (NONE, {str: is_plain}),
    "average": (NONE, {str: Tensor}),
    "scaler": (NONE, {str: (int, float)}),
    "random": [str],
    "workers": [{int: str}],
}


def load_into(module: nn.Module, saved: dict[str, Any], path: Path) -> None:
    """Copy a checkpoint's weights, all of them or none.

    Raises:
        ValueError: keys or shapes do not fit.
    """
    state, own = saved["state_dict"], module.state_dict()
    if wrong := misfits(own, state, dict(module.named_parameters())):
        raise ValueError(
            f"the checkpoint {path} does not fit this trainer and config: {'; '.join(wrong)}"
        )
    before = {k: v.clone() if isinstance(v, Tensor) else v for k, v in own.items()}
    try:
        module.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        module.load_state_dict(before)
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"the checkpoint {path} does not fit this config: {reason}") from error
