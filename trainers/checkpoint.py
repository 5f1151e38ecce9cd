"""Save, find, check and load a checkpoint. A wrong one is refused in one sentence."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dassl.utils import load_checkpoint, save_checkpoint
from torch import nn

from trainers.published import to_our_names

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer

logger = logging.getLogger(__name__)

# Buffers that published checkpoints hold and that follow from the class names.
DERIVED = (
    "token_prefix",
    "token_suffix",
    "token_prefix2",
    "token_suffix2",
    "tokenized_prompts",
)


def save(
    trainer: CLIPTrainer,
    epoch: int,
    directory: str,
    is_best: bool = False,
    val_result: float | None = None,
    model_name: str = "",
) -> None:
    """Save what was learned, its identity, and the mean over epochs where there is one.

    Args:
        trainer: after an epoch.
        epoch: that epoch, counted from 0.
        directory: output folder of the run.
        is_best: save it as model-best.pth.tar, too.
        val_result: accuracy on validation pictures.
        model_name: file name instead of the usual one.
    """
    state = {
        "state_dict": trainer.model.learned.state_dict(),
        "epoch": epoch + 1,
        "optimizer": trainer.optim.state_dict(),
        "scheduler": trainer.sched.state_dict(),
        "val_result": val_result,
        "identity": trainer.identity(),
        "average": None if trainer.average is None else trainer.average.state_dict(),
    }
    folder = str(Path(directory) / trainer.checkpoint_name)
    save_checkpoint(state, folder, is_best=is_best, model_name=model_name)


def prepare_resuming(trainer: CLIPTrainer, directory: str) -> None:
    """See whether a checkpoint to go on from is this run's; take over its mean over epochs."""
    pointer = Path(directory) / trainer.checkpoint_name / "checkpoint"
    if not pointer.is_file():
        return
    path = find_checkpoint(directory, trainer.checkpoint_name, last=True)
    saved = read_checkpoint(path)
    check_identity(saved, trainer.identity(), path, (*trainer.identity_keys(), "class_names"))
    if trainer.average is not None and saved.get("average") is not None:
        trainer.average.load_state_dict(saved["average"])


def load(trainer: CLIPTrainer, directory: str, epoch: int | None) -> int | None:
    """Load learned weights for evaluation; nothing is loaded that does not fit.

    Returns:
        The checkpoint's epoch; None without a folder.
    """
    if not directory:
        logger.info("No --model-dir: evaluating without learned weights")
        return None
    path = find_checkpoint(directory, trainer.checkpoint_name, epoch)
    saved = read_checkpoint(path)
    check_identity(saved, trainer.identity(), path, trainer.identity_keys())
    if "identity" not in saved:
        saved["state_dict"] = to_our_names(saved["state_dict"], trainer.model, path)
        own = trainer.model.learned.state_dict()  # published projects know no pruning
        saved["state_dict"] |= {k: v for k, v in own.items() if k.startswith("pruner.")}
    load_into(trainer.model.learned, saved, path)
    logger.info("Loaded %s (epoch %d)", path, saved["epoch"])
    return saved["epoch"]


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
    beside = {p.parent.name for p in Path(directory).glob("*/model*.pth.tar*")} - {name}
    hint = f", but there is a folder {', '.join(sorted(beside))} of another trainer" * bool(beside)
    raise FileNotFoundError(
        f"no checkpoint {' or '.join(wanted)} in {folder}; found: {', '.join(found) or 'none'}"
        f"{hint} (--model-dir, --load-epoch)"
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
    wrong = [f"{'; '.join(wrong[:3])}, ... {len(wrong)} in all"] if len(wrong) > 4 else wrong
    wrong += [f"it lacks {_short(missing)}"] if missing else []
    wrong += [f"it has also {_short(extra)}"] if extra else []
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
    if not isinstance(value, list):
        return str(value)
    if len(value) > 4:
        return f"{', '.join(map(str, value[:3]))}, ... {len(value)} in all"
    return ", ".join(map(str, value))
