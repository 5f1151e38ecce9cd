"""The command line of lab/benchmark.py."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lab.bench import DTYPES, FORMS, FROZEN, NAMES
from tools.shared.command_line import parser_of, whole

OUTPUT = Path("output/benchmark")
AXES = {"train": ("classes", "batch"), "eval": ("classes", "batch", "keep")}
HELP = {
    "train": "training steps: forward, backward, optimiser, memory; also with features at hand",
    "eval": "evaluated batches, beside zero-shot CLIP with text features at hand",
    "loader": "the training loader, with and without decoded pictures kept in memory",
    "end2end": "the test loader and Spotlighter, beside zero-shot CLIP",
    "run": "whole trainings, counted from steps, ours with a store of features, empty at the start",
    "second": "an evaluation on pictures whose features another trainer has left in a store",
    "tower": "the image tower beside its matrix products alone, and a profile of the rest",
    "plot": "draw the table and the plots again from the rows in results.csv",
}
EXAMPLES = {
    "train": """\
  python lab/benchmark.py train --trainers CoOp --classes 10 100 --batch 32
  python lab/benchmark.py train --trainers MaPLe CoOp --sweep classes --dtype bfloat16""",
    "eval": """\
  python lab/benchmark.py eval --trainers Spotlighter --prune 3:98 3:98,6:49
  python lab/benchmark.py eval --trainers CoOp --classes 1000 --device cuda""",
    "loader": "  python lab/benchmark.py loader --dataset emoji_food --root data",
    "end2end": """\
  python lab/benchmark.py end2end --images 128 --workers 0 2 --prune recommended 3:49""",
    "run": """\
  python lab/benchmark.py run --trainers CoOp --shots 16 --epochs 50 --views 4
  python lab/benchmark.py run --backbone quick --classes 10""",
    "second": "  python lab/benchmark.py second --trainers CoOp --images 128",
    "tower": "  python lab/benchmark.py tower --batch 8",
    "plot": "  python lab/benchmark.py plot --output output/benchmark",
}


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Options that may stand before or behind the command."""

    def add(name: str, **options: object) -> None:
        parser.add_argument(name, default=argparse.SUPPRESS, **options)

    add("--output", type=Path, help=f"folder of the results ({OUTPUT})")
    add("--threads", type=whole(1), help="threads of the CPU (1)")
    add("--device", help="cpu, cuda or cuda:N (cpu)")
    add("--debug", action="store_true", help="show the traceback of an error")


def add_command(parser: argparse.ArgumentParser, name: str) -> None:
    """The options of one command."""
    add = parser.add_argument
    add_shared(parser)
    if name != "plot":
        add("--rounds", type=whole(1), default=5, help="times that each form is timed (5)")
        add("--warmup", type=whole(1), default=3, help="calls before the clock runs (3)")
        add("--round-s", type=float, default=1.0, help="least seconds of a round (1)")
    if name not in ("plot", "loader"):
        add("--backbone", default="ViT-B/16", help='a ViT of CLIP, or "quick", a small one')
        add("--dtype", choices=DTYPES, default="float32", help="of our image tower (float32)")
        add("--seed", type=int, default=0, help="of weights and pictures (0)")
    if name in AXES:
        add_conditions(parser, name)
    if name in ("eval", "end2end"):
        text = "as 3:98 or 3:98,6:49; recommended (by the pruned config); none "
        text += "(recommended for Spotlighter, none for the others)"
        add("--prune", nargs="+", metavar="BLOCK:PATCHES", help=text)
    if name in ("loader", "end2end", "second"):
        add_pictures(parser, name)
    if name in ("run", "second"):
        add_trainings(parser, name)
    if name == "tower":
        add("--batch", nargs="+", type=whole(1), default=[8], help="batch sizes (8)")


def add_pictures(parser: argparse.ArgumentParser, command: str) -> None:
    """Which files are read, and how."""
    add = parser.add_argument
    add("--images", type=whole(1), default=256, help="JPEG files to write and read (256)")
    add("--dataset", default="", metavar="STEM", help="of a yaml in configs/datasets, instead")
    add("--root", type=Path, default=Path("data"), help="folder of all data sets (data)")
    add("--batch", type=whole(1), default=32, help="pictures of a batch (32)")
    if command != "second":
        add("--workers", nargs="+", type=int, default=[0, 2], help="loader processes (0 2)")


def add_trainings(parser: argparse.ArgumentParser, command: str) -> None:
    """Which trainers take features, and how long a training is."""
    add = parser.add_argument
    chosen = {"nargs": "+", "metavar": "NAME", "default": ["CoOp"]}
    add("--trainers", choices=FROZEN, help=f"of {', '.join(FROZEN)} (CoOp)", **chosen)
    add("--classes", nargs="+", type=whole(1), default=[100], help="numbers of classes (100)")
    if command == "run":
        add("--batch", nargs="+", type=whole(1), help="batch sizes (as published: 32, 1, 8)")
        add("--shots", type=whole(1), default=16, help="training pictures of each class (16)")
        add("--epochs", type=whole(1), default=50, help="passes over them (50)")
        add("--views", type=whole(1), default=4, help="of each picture, encoded once (4)")


def add_conditions(parser: argparse.ArgumentParser, command: str) -> None:
    """Which trainers are measured, and under which conditions."""
    add = parser.add_argument
    names = ", ".join(NAMES)
    usual = "32" if command == "eval" else "as published: 32, 1, 4, 4, 8; Spotlighter 8 and 32"
    chosen = {"nargs": "+", "metavar": "NAME"}
    add("--trainers", choices=NAMES, default=list(NAMES), help=f"of {names} (all)", **chosen)
    add("--classes", nargs="+", type=whole(1), default=[100], help="numbers of classes (100)")
    add("--batch", nargs="+", type=whole(1), help=f"batch sizes ({usual})")
    forms = FORMS[command]
    add("--forms", nargs="+", choices=forms, default=list(forms), help="what is timed (all)")
    add("--sweep", choices=AXES[command], help="give one condition several values, for a plot")
    if command == "eval":
        add("--compile", default="", metavar="BACKEND", help="of torch.compile, as inductor")
    add("--no-counts", action="store_true", help="time alone, without memory and operations")


def parse_arguments(doc: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; exactly one of a command and --quick must be there."""
    parser = parser_of(doc)
    text = "ratios on a small ViT, in two minutes"
    parser.add_argument("--quick", action="store_true", help=text)
    add_shared(parser)
    parser.set_defaults(output=OUTPUT, threads=1, device="cpu")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in HELP.items():
        epilog = f"examples:\n{EXAMPLES[name]}"
        options = {"help": text, "description": text, "epilog": epilog}
        options["formatter_class"] = argparse.RawDescriptionHelpFormatter
        add_command(commands.add_parser(name, **options), name)
    args = parser.parse_args(arguments)
    if args.quick == (args.command is not None):
        parser.error(f"choose what to measure: --quick or one of {', '.join(HELP)}")
    return args
