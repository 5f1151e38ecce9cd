r"""Write a trained run as a graph for other programs: ONNX, and a torch.export program.

OUTPUT holds model.onnx and model.pt2 (image -> logits, and kept_patches where patches are selected)
for any batch size, and, written last, model.json: class names, preparation of pictures, config,
digest of the checkpoint, versions. Each graph is run and compared with the model before that.

Usage:
    python tools/export.py --model-dir output/my_run --output exported
    python tools/export.py --model-dir output/my_run --output exported --format onnx \
        --classes names.txt --new inherit
    python docs/examples/classify_onnx.py exported a.jpg b.jpg
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from yacs.config import CfgNode

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/export.py`
from inference.graph import PACKAGES, ExportForm, require_packages, run_onnx, trace, write_onnx
from inference.open import open_without_data
from lab.bench.progress import Report
from models.clip.fetch import digest_of
from runs.checkpoint import find_checkpoint
from runs.files import write_text
from runs.identity import training_keys
from runs.quiet import quiet
from runs.record import git_revision, versions
from tools.shared.command_line import parser_of, reports_user_errors
from tools.shared.run_arguments import add_run_arguments, read_class_list
from trainers.base import CLIPTrainer

TOLERANCE = 1e-4  # of the largest logit
BATCHES = (1, 4)  # that a graph is tried with


class Trial(NamedTuple):
    """Random pictures, and what the model says of them."""

    image: Tensor
    logits: Tensor


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    add_run_arguments(parser)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    add("--format", choices=("onnx", "torch", "both"), default="both", help="(both)")
    return parser.parse_args(argv)


def preparation(cfg: CfgNode) -> dict[str, Any]:
    """How a picture becomes an input of the graph.

    Raises:
        ValueError: the run prepares pictures in a way that these few numbers do not say.
    """
    settings = cfg.INPUT
    if "instance_norm" in settings.TRANSFORMS:
        raise ValueError(
            "a run with instance_norm in INPUT.TRANSFORMS prepares pictures in a way that "
            "model.json cannot say; it is not exported"
        )
    normalised = "normalize" in settings.TRANSFORMS
    return {
        "mode": "RGB",
        "resize_short_side": max(settings.SIZE),
        "interpolation": settings.INTERPOLATION,
        "center_crop": list(settings.SIZE),
        "scale_to": [0.0, 1.0],
        "mean": list(settings.PIXEL_MEAN) if normalised else [0.0] * 3,
        "std": list(settings.PIXEL_STD) if normalised else [1.0] * 3,
    }


def describe(args: argparse.Namespace, trainer: CLIPTrainer, form: ExportForm) -> dict[str, Any]:
    """What model.json says."""
    checkpoint = None
    if trainer.state.loaded_epoch is not None:
        path = find_checkpoint(args.model_dir, trainer.checkpoint_name)
        digest = digest_of(path)
        checkpoint = {"file": path.name, "sha256": digest, "epoch": trainer.state.loaded_epoch}
    packages = {name: version(name) for name in PACKAGES if args.format != "torch"}
    return {
        "trainer": trainer.cfg.TRAINER.NAME,
        "backbone": trainer.cfg.MODEL.BACKBONE.NAME,
        "class_names": trainer.class_names,
        "preparation": preparation(trainer.cfg),
        "input": "image",
        "outputs": form.output_names,
        "checkpoint": checkpoint,
        "config": training_keys(trainer.cfg),
        "versions": versions() | packages | {"git": git_revision()},
    }


@torch.no_grad()
def trials(trainer: CLIPTrainer) -> list[Trial]:
    """Random pictures in batches of several sizes, and the model's logits of them.

    Raises:
        ValueError: the logits are no numbers.
    """
    size, generator = trainer.cfg.INPUT.SIZE, torch.Generator().manual_seed(0)
    images = [torch.randn(batch, 3, *size, generator=generator) for batch in BATCHES]
    tried = [Trial(image, trainer.model(image)) for image in images]
    if not all(torch.isfinite(trial.logits).all() for trial in tried):
        raise ValueError(
            "the model's logits are infinite or not a number, so nothing is exported; its weights "
            "or its checkpoint are damaged, or too large for its precision"
        )
    return tried


def compare(name: str, run: Callable[[Tensor], Tensor], tried: Sequence[Trial]) -> float:
    """The largest difference of logits, as a share of the largest logit.

    Raises:
        ValueError: it is too large.
    """
    differences = [
        (run(trial.image) - trial.logits).abs().max() / trial.logits.abs().max() for trial in tried
    ]
    worst = float(torch.stack(differences).max())  # no number, if one of them is none
    if not worst <= TOLERANCE:
        raise ValueError(
            f"the graph in {name} gives other logits than the model ({worst:.1e} of the largest, "
            f"where {TOLERANCE:g} would be rounding); do not use it, and report this run's config"
        )
    return worst


def export(args: argparse.Namespace) -> None:
    """Open the run, write what was asked for, compare."""
    if args.format != "torch":
        require_packages()
    with Report() as report:
        report.start("opening the run")
        trainer = open_without_data(
            args.model_dir, read_class_list(args.classes), new=args.new, root=args.root, plain=True
        )
        tried = trials(trainer)
        form = ExportForm(trainer.model)
        described = describe(args, trainer, form)
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "model.json").unlink(missing_ok=True)
        report.start("tracing the model")
        program = trace(form, tuple(trainer.cfg.INPUT.SIZE))
        worst = {}
        if args.format != "onnx":
            report.start("writing and trying model.pt2")
            path = args.output / "model.pt2"
            torch.export.save(program, path)
            run = torch.export.load(path).module()
            worst[path.name] = compare(path.name, lambda image: run(image)[0], tried)
        if args.format != "torch":
            report.start("writing and trying model.onnx")
            path = args.output / "model.onnx"
            write_onnx(program, form.output_names, path)
            worst[path.name] = compare(path.name, lambda image: run_onnx(path, image), tried)
    write_text(args.output / "model.json", json.dumps(described, indent=2) + "\n")
    for name, difference in worst.items():
        size = (args.output / name).stat().st_size / 1e6
        print(
            f"{args.output / name}: {size:.1f} MB; logits differ by {difference:.0e} of the largest"
        )


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Export; a mistake of the user's ends in one sentence and exit code 2."""
    args = parse_args(argv)
    with quiet("dassl", "trainers", "runs"), torch.no_grad():
        export(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
