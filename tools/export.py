r"""Write a trained run as a graph for other programs: ONNX, and a torch.export program.

OUTPUT holds model.onnx and model.pt2 (image -> logits, and kept_patches where patches are selected)
for any batch size, README.md, the model card: data, classes, accuracy, calibration, limits, and,
written last, model.json: class names, preparation of pictures, config, digest of the checkpoint,
versions. Each graph is run and compared with the model before that.

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
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/export.py`
from models.clip.fetch import digest_of
from runs.files import write_text
from runs.logs import quiet
from runs.record import git_revision, versions
from tools.results.card import model_card
from tools.shared.command_line import parser_of, reports_user_errors
from tools.shared.run_arguments import add_run_arguments, read_class_list

if TYPE_CHECKING:
    from torch import Tensor

    from inference.graph import Graph
    from trainers.base import CLIPTrainer

TOLERANCE = 1e-4  # of the largest logit
BATCHES = (1, 4)  # that a graph is tried with
FILES = {"torch": "model.pt2", "onnx": "model.onnx"}


def describe(trainer: CLIPTrainer, run: str, outputs: list[str], onnx: bool) -> dict[str, Any]:
    """Return the content of model.json; a ValueError names what it has no words for."""
    from inference.graph import PACKAGES
    from runs.checkpoint import find_checkpoint
    from runs.identity import training_keys

    cfg, settings, checkpoint = trainer.cfg, trainer.cfg.INPUT, None
    if "instance_norm" in settings.TRANSFORMS:
        raise ValueError(
            "a run with instance_norm in INPUT.TRANSFORMS prepares pictures in a way that "
            "model.json cannot say; it is not exported"
        )
    if trainer.state.loaded_epoch is not None:
        path = find_checkpoint(run, trainer.checkpoint_name)
        checkpoint = {"file": path.name, "sha256": digest_of(path)}
        checkpoint |= {"epoch": trainer.state.loaded_epoch}
    normalised = "normalize" in settings.TRANSFORMS
    packages = {name: version(name) for name in PACKAGES if onnx}
    return {
        **{"trainer": cfg.TRAINER.NAME, "backbone": cfg.MODEL.BACKBONE.NAME},
        "class_names": trainer.class_names,
        "preparation": {
            "turn_by_exif": settings.EXIF != "stored",  # as the predictor does
            **{"mode": "RGB", "resize_short_side": max(settings.SIZE)},
            **{"interpolation": settings.INTERPOLATION, "center_crop": list(settings.SIZE)},
            "scale_to": [0.0, 1.0],
            "mean": list(settings.PIXEL_MEAN) if normalised else [0.0] * 3,
            "std": list(settings.PIXEL_STD) if normalised else [1.0] * 3,
        },
        **{"input": "image", "outputs": outputs, "checkpoint": checkpoint},
        "temperature": cfg.TEST.TEMPERATURE,  # the logits are divided by it already
        "config": training_keys(cfg),
        "versions": versions() | packages | {"git": git_revision()},
    }


def trials(trainer: CLIPTrainer) -> list[tuple[Tensor, Tensor]]:
    """Return random pictures in batches of several sizes, and the finite logits of an export."""
    import torch

    size, generator = trainer.cfg.INPUT.SIZE, torch.Generator().manual_seed(0)
    images = [torch.randn(batch, 3, *size, generator=generator) for batch in BATCHES]
    temperature = trainer.cfg.TEST.TEMPERATURE
    tried = [(image, trainer.model(image) / temperature) for image in images]
    if not all(torch.isfinite(logits).all() for _, logits in tried):
        raise ValueError(
            "the model's logits are infinite or not a number, so nothing is exported; its weights "
            "or its checkpoint are damaged, or too large for its precision"
        )
    return tried


def compare(name: str, run: Graph, tried: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the largest difference of logits, a share of the largest logit, if it is rounding."""
    import torch

    shares = [(run(image) - logits).abs().max() / logits.abs().max() for image, logits in tried]
    worst = float(torch.stack(shares).max())  # nan, if one of them is
    if not worst <= TOLERANCE:
        raise ValueError(
            f"the graph in {name} gives other logits than the model ({worst:.1e} of the largest, "
            f"where {TOLERANCE:g} would be rounding); do not use it, and report this run's config"
        )
    return worst


def is_exported(folder: Path, files: Sequence[str], described: dict[str, Any]) -> bool:
    """Whether a folder holds graphs whose model.json says what a new one would say."""
    try:
        said = json.loads((folder / "model.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    is_same = said == json.loads(json.dumps(described))  # JSON has lists alone
    return is_same and all((folder / name).is_file() for name in files)


def export(args: argparse.Namespace) -> None:
    """Open the run, write the graphs, compare them with the model, write model.json."""
    from inference import graph
    from inference.open import open_without_data

    report = partial(print, file=sys.stderr, flush=True)  # each step takes seconds
    chosen = list(FILES) if args.format == "both" else [args.format]
    if "onnx" in chosen:
        graph.require_packages()
    report("opening the run")
    names = read_class_list(args.classes)
    trainer = open_without_data(args.model_dir, names, new=args.new, root=args.root, plain=True)
    form = graph.ExportForm(trainer.model, trainer.cfg.TEST.TEMPERATURE)
    described = describe(trainer, args.model_dir, form.output_names, "onnx" in chosen)
    if args.if_changed and is_exported(args.output, [FILES[kind] for kind in chosen], described):
        print(f"{args.output}: exported before, from the same run and versions")
        return
    tried = trials(trainer)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "model.json").unlink(missing_ok=True)
    report("tracing the model")
    program = graph.trace(form, tuple(trainer.cfg.INPUT.SIZE))
    writers = {"torch": graph.write_program, "onnx": graph.write_onnx}
    for kind in chosen:
        name, write = FILES[kind], writers[kind]
        report(f"writing and trying {name}")
        path = args.output / name
        worst = compare(name, write(program, form.output_names, path), tried)
        size = path.stat().st_size / 1e6
        print(f"{path}: {size:.1f} MB; logits differ by {worst:.0e} of the largest")
    write_text(args.output / "README.md", model_card(Path(args.model_dir), described))
    write_text(args.output / "model.json", json.dumps(described, indent=2) + "\n")


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Export a run."""
    parser = parser_of(__doc__)
    add_run_arguments(parser)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    add("--format", choices=("onnx", "torch", "both"), default="both", help="default both")
    changed = "do nothing if DIR holds the export of this run as it is now"
    add("--if-changed", action="store_true", help=changed)
    args = parser.parse_args(argv)
    import torch

    with quiet("dassl", "trainers", "runs"), torch.no_grad():
        export(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
