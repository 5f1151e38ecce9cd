"""Make assets/tiny_clip.pt from scratch: fetch drawings, render them, train a tiny CLIP.

Usage:
    python lab/pretrain_tiny_clip.py --minutes 60
    python lab/pretrain_tiny_clip.py --evaluate test     # accuracy of assets/tiny_clip.pt instead

Run it again to go on where it stopped. Needs npm and `pip install resvg-py` the first time.
The result lies in output/pretrain/<name>/asset.pt; to use it, copy it to assets/tiny_clip.pt.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from datasets.emoji_pictures import DOMAINS  # noqa: E402
from datasets.emoji_sets import PICTURES_PER_CLASS, code_points  # noqa: E402
from lab.pretrain.captions import Captioner  # noqa: E402
from lab.pretrain.evaluate import zero_shot_of  # noqa: E402
from lab.pretrain.settings import Settings  # noqa: E402
from lab.pretrain.sources import fetch, load_sprites, read_concepts  # noqa: E402
from lab.pretrain.training import Pretraining  # noqa: E402
from models.clip.load import load_tiny_clip  # noqa: E402
from tools.shared.command_line import parser_of  # noqa: E402

ASSET = ROOT / "assets/tiny_clip.pt"
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
BENCHMARK_WEIGHT = 4.0  # the benchmark's concepts are shown so much more often than the others


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = parser_of(__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "output/pretrain")
    parser.add_argument("--name", default="tiny", help="of the run, a folder under --folder")
    parser.add_argument("--minutes", type=float, default=Settings.minutes)
    parser.add_argument("--batch-size", type=int, default=Settings.batch_size)
    parser.add_argument("--vision-width", type=int, default=Settings.vision_width)
    parser.add_argument("--vision-layers", type=int, default=Settings.vision_layers)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--evaluate", choices=PICTURES_PER_CLASS, help="measure the asset instead")
    parser.add_argument("--domain", choices=DOMAINS, default=DOMAINS[0], help="of --evaluate")
    return parser.parse_args(argv)


def return_freed_memory() -> None:
    """Have large freed blocks given back at once (glibc): without, 1 GB piles up a minute."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 256 * 1024)


def evaluate(split: str, domain: str) -> None:
    """Print the zero-shot accuracy of the asset on all pictures of a split."""
    count = PICTURES_PER_CLASS[split]
    model = load_tiny_clip(ASSET, digest="")  # it may be a new one
    table = zero_shot_of(model, split=split, per_class=count, domain=domain)
    for name, row in table.items():
        print(f"{name:<8} base {row['base']:5.1f}  new {row['new']:5.1f}")


def main(argv: list[str] | None = None) -> None:
    """Train for the time given, or go on with a training that was stopped."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.evaluate:
        evaluate(args.evaluate, args.domain)
        return
    return_freed_memory()
    run = args.folder / args.name
    run.mkdir(parents=True, exist_ok=True)
    handlers = [logging.StreamHandler(), logging.FileHandler(run / "log.txt")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers)
    packages = args.folder / "packages"
    fetch(packages)
    concepts = read_concepts(packages)
    sprites = load_sprites(packages, concepts, args.folder / "sprites.pt")
    names = {code_point: name for name, code_point in code_points().items()}
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


if __name__ == "__main__":
    main()
