"""Find, read and load a checkpoint. A wrong one is refused in one sentence."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from dassl.utils import load_checkpoint
from torch import nn

from models.weights import misfits
from trainers.identity import check, short
from trainers.published import to_our_names

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer

logger = logging.getLogger(__name__)

BEST = "model-best.pth.tar"
EXTRA = "_extra_state"  # torch's name of what a module saves beside its tensors
OF_PICTURES = ("head.memory.", "pruner.", "base.pruner.", "tuner.pruner.")  # not learned by steps
POINTER = "checkpoint"  # text file that names the newest checkpoint of its folder
# Buffers that published checkpoints hold and that follow from the class names.
DERIVED = (
    "token_prefix",
    "token_suffix",
    "token_prefix2",
    "token_suffix2",
    "tokenized_prompts",
)


def load(trainer: CLIPTrainer, directory: str | Path, epoch: int | None) -> None:
    """Load learned weights for evaluation; nothing is loaded that does not fit.

    Without a folder nothing is loaded. The trainer learns which epoch it is, and what chose it.
    """
    if not directory:
        logger.info("No --model-dir: evaluating without learned weights")
        return
    path = find_checkpoint(directory, trainer.checkpoint_name, epoch)
    saved = read_fitting(trainer, path)
    load_into(trainer.model.learned, saved, path)
    trainer.loaded_epoch = saved["epoch"]
    trainer.epoch_chosen_by = who_chose(path, epoch)
    trainer.chosen_elsewhere = "identity" not in saved
    logger.info("Loaded %s (epoch %d)", path, saved["epoch"])


def read_fitting(trainer: CLIPTrainer, path: Path) -> dict[str, Any]:
    """A checkpoint of this trainer on this CLIP, ours or a published one, under our names.

    Raises:
        ValueError: it is of another trainer, CLIP or use.
    """
    saved = read_checkpoint(path)
    check(trainer, saved, path, to_train=False)
    if "identity" not in saved:
        saved["state_dict"] = to_our_names(saved["state_dict"], trainer.model, path)
        own = trainer.model.learned.state_dict()  # published projects know no pruning
        saved["state_dict"] |= {k: v for k, v in own.items() if k.startswith("pruner.")}
    return saved


def start_from(trainer: CLIPTrainer, given: Path) -> None:
    """Begin training with what another run has learned; the optimiser begins anew.

    What is filled from the training pictures, a bank and a pruner, is filled from this run's.

    Args:
        trainer: before its first step.
        given: MODEL.INIT_WEIGHTS, a checkpoint or the output folder of a run.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it does not fit.
    """
    path = find_checkpoint(given, trainer.checkpoint_name) if given.is_dir() else given
    saved, own = read_fitting(trainer, path), trainer.model.learned.state_dict()
    state = {k: v for k, v in saved["state_dict"].items() if not k.startswith(OF_PICTURES)}
    saved["state_dict"] = state | {k: v for k, v in own.items() if k.startswith(OF_PICTURES)}
    load_into(trainer.model.learned, saved, path)
    logger.info("Starting from %s (MODEL.INIT_WEIGHTS)", path)


def who_chose(path: Path, epoch: int | None) -> str:
    """What chose the epoch of a checkpoint that is loaded."""
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


def find_checkpoint(directory: str | Path, name: str, epoch: int | None = None) -> Path:
    """The file to load: that epoch's, else model-best, else the one `checkpoint` points to.

    Args:
        directory: `--model-dir`.
        name: folder of the registered model, as prompt_learner.
        epoch: `--load-epoch`.

    Raises:
        FileNotFoundError: says what is there.
    """
    folder = Path(directory) / name
    wanted = [BEST] if epoch is None else [f"model.pth.tar-{epoch}"]
    pointer = folder / POINTER
    if epoch is None and pointer.is_file():
        wanted.append(pointer.read_text("utf-8", "replace").strip())
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
        ValueError: it cannot be read, is none of this family, or holds what is no number.
    """
    saved = load_checkpoint(str(path))
    fault = _fault(saved)
    if fault:
        raise ValueError(f"{path} is not a checkpoint of this family: {fault}")
    state = saved["state_dict"]
    wrong = [k for k, v in state.items() if torch.is_tensor(v) and not torch.isfinite(v).all()]
    if wrong:
        raise ValueError(f"{path} holds infinite numbers, or what is no number, in {short(wrong)}")
    saved["state_dict"] = {k: v for k, v in state.items() if k.split(".")[-1] not in DERIVED}
    return saved


def _fault(saved: Any) -> str:
    """What is missing or of another kind in a checkpoint; "" if nothing is."""
    parts = saved if isinstance(saved, dict) else {}
    state, about = parts.get("state_dict"), parts.get("identity", {})
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and (_is_plain(value) or name.endswith(EXTRA))
        for name, value in state.items()
    ):
        return "it has no state_dict of tensors"
    if type(parts.get("epoch")) is not int or parts["epoch"] < 0:
        return "it does not say its epoch"
    known = about if isinstance(about, dict) else {}
    sub = [about, *(known.get(key, {}) for key in ("config", "version"))]
    return "" if all(isinstance(part, dict) for part in sub) else "its identity is none"


def _is_plain(value: Any) -> bool:
    return torch.is_tensor(value) and value.layout == torch.strided and not value.is_meta


def load_into(module: nn.Module, saved: dict[str, Any], path: Path) -> None:
    """Copy a checkpoint's weights, all of them or none.

    Raises:
        ValueError: keys or shapes do not fit.
    """
    state = saved["state_dict"]
    own = module.state_dict()
    if wrong := misfits(own, state, dict(module.named_parameters())):
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
