"""Find, read and load a checkpoint. A wrong one is refused in one sentence."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.class_names import rows_taken_over
from models.clip.plain_files import not_finite, read_plain
from models.clip.weights import misfits
from runs.identity import WHY, short

BEST = "model-best.pth.tar"
POINTER = "checkpoint"  # text file that names the newest checkpoint of its folder
# Filled from the training pictures, not learned in steps.
STATISTICS = ("head.memory.", "pruner.", "base.pruner.")
# Buffers of published checkpoints that follow from the class names.
DERIVED = ("token_prefix", "token_suffix", "token_prefix2", "token_suffix2", "tokenized_prompts")


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
    """The file in a run's folder `name`: of an epoch, else model-best, else the newest."""
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
    """A checkpoint, without buffers that follow from class names; ValueError for a damaged one."""
    saved = read_plain(path)
    if not isinstance(saved, dict) or not {"state_dict", "epoch"} <= saved.keys():
        fault = "it has no state_dict or epoch"
    else:
        odd = [part for part in FORM if part in saved and not is_of(saved[part], FORM[part])]
        fault = f"its {', '.join(odd)} is of another form" if odd else ""
    if fault:
        raise ValueError(f"{path} is not a checkpoint of this family: {fault}")
    state = saved["state_dict"]
    if wrong := not_finite(state):
        raise ValueError(f"{path} holds infinite numbers, or what is no number, in {short(wrong)}")
    saved["state_dict"] = {k: v for k, v in state.items() if k.split(".")[-1] not in DERIVED}
    return saved


def is_of(value: Any, form: Any) -> bool:
    """Whether plain data is of a form.

    A form is a type or a test; a tuple of forms, one of which must fit; [form of each item]; {type
    of all keys: form of all values}; {key: form of its value}, where keys may lack.
    """
    if isinstance(form, tuple):
        return any(is_of(value, one) for one in form)
    if not isinstance(form, (list, dict)):
        return type(value) is form if isinstance(form, type) else bool(form(value))
    if isinstance(form, list):
        return type(value) is list and all(is_of(item, form[0]) for item in value)
    if type(value) is not dict:
        return False
    (key, inner), *_ = form.items()
    if isinstance(key, type):
        return all(type(name) is key and is_of(item, inner) for name, item in value.items())
    return all(is_of(value[name], one) for name, one in form.items() if name in value)


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
    "optimizer": (NONE, {"state": {int: {str: (NONE, Tensor)}}}),
    "scheduler": (NONE, {str: is_plain}),
    "average": (NONE, {str: Tensor}),
    "scaler": (NONE, {str: (int, float)}),
    "random": [str],
    "workers": [{int: str}],
}


def load_into(module: nn.Module, saved: dict[str, Any], path: Path) -> None:
    """Copy a checkpoint's weights, all of them or none; ValueError if keys or shapes differ."""
    state, own = saved["state_dict"], module.state_dict()
    shaped = dict(module.named_parameters()).keys() - rows_taken_over(module)
    if wrong := misfits(own, state, shaped):
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
