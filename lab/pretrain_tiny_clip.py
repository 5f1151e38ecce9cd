"""Make assets/tiny_clip.pt from scratch: fetch drawings, render them, train a tiny CLIP.

Usage:
    python lab/pretrain_tiny_clip.py --minutes 60
    python lab/pretrain_tiny_clip.py --evaluate test     # accuracy of assets/tiny_clip.pt instead

Run it again to continue a training that was stopped. Needs torch 2.9 or newer and, the first time,
npm and `pip install resvg-py`. The result is output/pretrain/<name>/asset.pt; to use it, copy it to
assets/tiny_clip.pt.
"""

import argparse
import ctypes
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python lab/pretrain_tiny_clip.py`
from datasets.emoji_pictures import CODE_POINTS, DOMAINS, PICTURES_PER_CLASS
from lab.pretrain.settings import Settings
from tools.shared.command_line import parser_of, reports_user_errors

ROOT = Path(__file__).parents[1]
ASSET = ROOT / "assets/tiny_clip.pt"
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
BENCHMARK_WEIGHT = 4.0  # how often a concept of the benchmark is shown, against any other


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--folder", type=Path, default=ROOT / "output/pretrain", help="of all runs and sources")
    add("--name", default="tiny", help="of the run, a folder under --folder (tiny)")
    add("--minutes", type=float, default=Settings.minutes, help="how long to train (60)")
    add("--batch-size", type=int, default=Settings.batch_size, help="pictures of a batch (192)")
    add("--vision-width", type=int, default=Settings.vision_width, help="image tower (128)")
    add("--vision-layers", type=int, default=Settings.vision_layers, help="image tower (4)")
    add("--seed", type=int, default=Settings.seed, help="of everything random (0)")
    add("--threads", type=int, default=1, help="threads of the CPU (1)")
    add("--no-compile", action="store_true", help="do without torch.compile")
    add("--evaluate", choices=PICTURES_PER_CLASS, help="measure the asset instead")
    add("--domain", choices=DOMAINS, default=DOMAINS[0], help="of --evaluate")
    return parser.parse_args(argv)


def return_freed_memory() -> None:
    """Have glibc return large freed blocks at once; otherwise memory grows by 1 GB a minute."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 256 * 1024)


def evaluate(split: str, domain: str) -> None:
    """Print the zero-shot accuracy of the asset on all pictures of a split."""
    from lab.pretrain.evaluate import zero_shot_of
    from models.clip.load import load_tiny_clip

    count = PICTURES_PER_CLASS[split]
    model = load_tiny_clip(ASSET, digest="")  # it may be a new one
    table = zero_shot_of(model, split=split, per_class=count, domain=domain)
    for name, row in table.items():
        print(f"{name:<8} base {row['base']:5.1f}  new {row['new']:5.1f}")


def pretrain(args: argparse.Namespace) -> None:
    """Fetch what is drawn and named, and train."""
    import torch

    from lab.pretrain.captions import Captioner
    from lab.pretrain.sources import fetch, load_sprites, read_concepts
    from lab.pretrain.training import Pretraining

    return_freed_memory()
    run = args.folder / args.name
    run.mkdir(parents=True, exist_ok=True)
    handlers = [logging.StreamHandler(), logging.FileHandler(run / "log.txt")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers)
    packages = args.folder / "packages"
    fetch(packages)
    concepts = read_concepts(packages)
    sprites = load_sprites(packages, concepts, args.folder / "sprites.pt")
    names = {code_point: name for name, code_point in CODE_POINTS.items()}
    weights = [BENCHMARK_WEIGHT if concept.code_point in names else 1.0 for concept in concepts]
    settings = Settings(
        minutes=args.minutes,
        batch_size=args.batch_size,
        vision_width=args.vision_width,
        vision_layers=args.vision_layers,
        seed=args.seed,
        compiled=not args.no_compile,
    )
    captioner = Captioner(concepts, names)
    Pretraining(settings, sprites, captioner, torch.tensor(weights), run).run()


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Train for the time given, or continue a training that was stopped."""
    args = parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    if args.evaluate:
        evaluate(args.evaluate, args.domain)
    else:
        pretrain(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
