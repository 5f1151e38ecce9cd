r"""How many of the patches that Spotlighter keeps lie on the object: percent, by true masks.

Usage:
    python lab/object_hits.py \
        output/emoji/train_base/*/shots_16/Spotlighter/tiny_emoji/seed1

Each folder is a Spotlighter run on the base classes of an embedded data set, whose pictures have
masks. The columns are percent of the kept patches of all test pictures, for each half of the
classes: by chance (the object's share of the picture), by class-token attention alone, as training
pictures are kept for the bank (no class has a say), and as Spotlighter keeps them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from dassl.engine import build_trainer
from dassl.utils import set_random_seed

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python lab/object_hits.py`
import datasets  # noqa: F401  (registers the data sets)
from datasets.emoji import load_masks
from lab.validate import batches
from runs.config import read_run_config
from runs.logs import quiet
from tools.results.cells import markdown_table
from tools.shared.command_line import parser_of, reports_user_errors

if TYPE_CHECKING:
    from torch import Tensor

    from models.spotlighter.model import SpotlightedCLIP, SpotlightedOutput
    from trainers.base import CLIPTrainer

    Chooser = Callable[[SpotlightedCLIP, SpotlightedOutput], Tensor]


def open_half(model_dir: Path, root: str, classes: str) -> CLIPTrainer:
    """A run's trainer on some half of the classes."""
    import trainers  # noqa: F401  (registers the trainers, with their keys)

    cfg = read_run_config(model_dir)
    cfg.DATASET.ROOT, cfg.DATASET.SUBSAMPLE_CLASSES = root or cfg.DATASET.ROOT, classes
    cfg.freeze()
    set_random_seed(cfg.SEED)
    trainer = build_trainer(cfg)
    if trainer.model.head is None:
        name = trainer.cfg.TRAINER.NAME
        raise ValueError(f"{model_dir} is a run of {name}, which selects no patches")
    trainer.load_model(str(model_dir))
    return trainer


def attended(model: SpotlightedCLIP, out: SpotlightedOutput) -> Tensor:
    """Positions of the patches that the class token attends to most, as many as are kept."""
    top = out.tokens.cls_attention.topk(model.head.options.topk, dim=-1).indices
    return top if out.tokens.positions is None else out.tokens.positions.gather(1, top)


def of_the_bank(model: SpotlightedCLIP, out: SpotlightedOutput) -> Tensor:
    """Those that would be kept for the bank."""
    head, text = model.head, out.side.text
    text = head.anchors if text.dim() == 3 else text
    selection = head.keep_for_bank(out.tokens, head.memory.direction, out.base_logits, text)
    return selection.indices


def kept(model: SpotlightedCLIP, out: SpotlightedOutput) -> Tensor:
    """Those that Spotlighter keeps."""
    return out.head.selection.indices


CHOOSERS: dict[str, Chooser] = {"attention": attended, "bank": of_the_bank, "kept": kept}


def precision(trainer: CLIPTrainer) -> dict[str, float]:
    """Percent of chosen patches on the object, by chooser, and `chance`."""
    import torch

    dataset = trainer.dm.dataset
    masks = load_masks(dataset.folder)
    images = dataset.folder / dataset.image_dir
    truth = np.stack([masks[str(Path(x.impath).relative_to(images))] for x in dataset.test])
    truth = torch.from_numpy(truth).float().to(trainer.device)
    hits, first = dict.fromkeys(CHOOSERS, 0.0), 0
    for image, _ in batches(trainer, dataset.test):
        on_object = truth[first : first + len(image)]
        first += len(image)
        with torch.no_grad():
            out = trainer.model.forward_all(image)
            for name, choose in CHOOSERS.items():
                chosen = choose(trainer.model, out)
                hits[name] += on_object.gather(1, chosen).mean(1).sum().item()
    found = {name: 100 * total / len(truth) for name, total in hits.items()}
    return {"chance": 100 * truth.mean().item()} | found


def rows(model_dir: Path, root: str) -> list[dict[str, object]]:
    """A row for the base and one for the new classes of a run."""
    trainers = {classes: open_half(model_dir, root, classes) for classes in ("base", "new")}
    return [
        {"data set": trainer.cfg.DATASET.NAME, "classes": classes} | precision(trainer)
        for classes, trainer in trainers.items()
    ]


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and the means of its columns."""
    parser = parser_of(__doc__)
    parser.add_argument("model_dirs", nargs="+", type=Path, help="folders of Spotlighter runs")
    parser.add_argument("--root", default="", help="folder of all data sets, if it moved")
    args = parser.parse_args(argv)
    with quiet():
        found = [row for one in args.model_dirs for row in rows(one, args.root)]
    table = pd.DataFrame(found)
    table["kept / chance"] = table["kept"] / table["chance"]
    means = table.groupby("classes").mean(numeric_only=True).reset_index()
    means.insert(0, "data set", "mean")
    print(markdown_table(pd.concat([table, means]), floatfmt=".1f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
