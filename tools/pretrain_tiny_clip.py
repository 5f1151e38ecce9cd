"""Make assets/tiny_clip.pt from scratch: fetch drawings, render them, train a tiny CLIP.

    python tools/pretrain_tiny_clip.py --minutes 60

Run it again to go on where it stopped. Needs npm and `pip install resvg-py` the first time.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from datasets.emoji_sets import code_points  # noqa: E402
from tools.pretrain.captions import Captioner  # noqa: E402
from tools.pretrain.sources import fetch, load_sprites, read_concepts  # noqa: E402
from tools.pretrain.training import Pretraining, Settings  # noqa: E402

BENCHMARK_WEIGHT = 4.0  # the benchmark's concepts are shown so much more often than the others


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "output/pretrain")
    parser.add_argument("--name", default="tiny", help="of the run, a folder under --folder")
    parser.add_argument("--minutes", type=float, default=Settings.minutes)
    parser.add_argument("--batch-size", type=int, default=Settings.batch_size)
    parser.add_argument("--vision-width", type=int, default=Settings.vision_width)
    parser.add_argument("--vision-layers", type=int, default=Settings.vision_layers)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Train for the time given, or go on with a training that was stopped."""
    args = parse_args(argv)
    run = args.folder / args.name
    run.mkdir(parents=True, exist_ok=True)
    handlers = [logging.StreamHandler(), logging.FileHandler(run / "log.txt")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers)
    torch.set_num_threads(args.threads)
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
