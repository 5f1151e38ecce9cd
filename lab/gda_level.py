"""What Spotlighter adds to Gaussian discriminant analysis (GDA): parts of the logits, side by side.

Usage:
    python lab/gda_level.py output/emoji/train_base/*/shots_16/Spotlighter/tiny_emoji/seed1

Each folder is a Spotlighter run on base classes. GDA is that of its shots, INPUT and TRAINER.GDA.
Each row's weights are fitted to training pictures that bank and Gaussians have not seen, as
Spotlighter's are. Columns: percent right of the test pictures, nats a picture, and differences to
base + GDA on the same pictures, with 95 % intervals of a bootstrap over pictures, and over seeds if
there are several. The base is the run's prompt tuner. In every row, base and global level name the
likely classes of the patch levels.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from dassl.engine import build_trainer
from dassl.utils import set_random_seed

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python lab/gda_level.py`
from lab.object_hits import open_half
from lab.validate import batches
from models.spotlighter import LEVELS
from runs.logs import quiet
from runs.record import changed
from tools.compare_trainers import interval
from tools.results.terminal import add_wide, fitted, room
from tools.shared.command_line import parser_of, reports_user_errors

if TYPE_CHECKING:
    from models.fit import Judged
    from trainers.gda import GDA
    from trainers.spotlighter import Spotlighter

PARTS, AGAINST = ("base", *LEVELS, "GDA"), "base + GDA"
ROWS = {
    "base": ("base",),
    AGAINST: ("base", "GDA"),
    "base + global level": ("base", "global"),
    "base + GDA + patch levels": ("base", "GDA", *LEVELS[1:]),
    "base + global level + patch levels": ("base", *LEVELS),
    "all": PARTS,
}
DIGITS = (2, 4)  # of accuracy and nll
COLUMNS = ("accuracy", "nll", f"accuracy, minus {AGAINST}", f"nll, minus {AGAINST}")


def open_both(model_dir: Path, root: str) -> tuple[Spotlighter, GDA]:
    """A run's trainer, and GDA on the same pictures."""
    spotlighter: Any = open_half(model_dir, root, "base")
    set_random_seed(spotlighter.cfg.SEED)
    gda = build_trainer(changed(spotlighter.cfg, {"TRAINER.NAME": "GDA"}))
    for trainer in (spotlighter, gda):
        trainer.set_model_mode("eval")
    return spotlighter, gda


def held_out(spotlighter: Spotlighter, gda: GDA) -> list[Judged]:
    """`PARTS` of training pictures, a fold each, by a bank and Gaussians without it; fills GDA."""
    import torch

    from models.fit import Judged, deal_shots
    from models.spotlighter.evidence import Evidence, read
    from runs import rng

    model, cfg = spotlighter.model, spotlighter.cfg
    with rng.seeded(max(0, cfg.SEED)):
        pictures, views = spotlighter.pictures()
        evidence = Evidence(model, pictures, *read(model, pictures, views))
    with rng.seeded(max(0, cfg.SEED)):
        features = gda.features()
    gda.model.fill(features)
    fold = deal_shots(evidence.label)
    if fold.min() < 0:
        raise ValueError(f"{cfg.OUTPUT_DIR}: a class has one shot; give runs with two or more")
    every = torch.arange(len(evidence.classes), device=fold.device)
    held = [evidence.hold_out(fold == number, every) for number in range(int(fold.max()) + 1)]
    judged = evidence.judge([(one, evidence.side(one)) for one in held])
    _, of_gda = next(iter(gda.model.learned.held_out(gda.model.evidence(features))))
    return [
        Judged(torch.cat([found.parts, of_gda[one.judges].unsqueeze(-1)], -1), found.label)
        for found, one in zip(judged, held, strict=True)
    ]


def tested(spotlighter: Spotlighter, gda: GDA) -> Judged:
    """`PARTS` of the test pictures, by the bank and the Gaussians of all shots."""
    import torch

    from models.clip.blocks import unit
    from models.fit import Judged

    gaussians, found = gda.model.learned, []
    table = gaussians.side(gda.model.fixed, gda.model.class_names).table
    for image, label in batches(spotlighter, spotlighter.dm.dataset.test):
        own = spotlighter.model.forward_all(image).head.parts.permute(1, 2, 0)  # (B, C, 5)
        of_gda = gaussians.part(unit(gda.encode(image)), table)
        found.append((torch.cat([own, of_gda.unsqueeze(-1)], -1), label))
    return Judged(*map(torch.cat, zip(*found, strict=True)))


def measure(model_dir: Path, root: str) -> tuple[tuple[str, int], np.ndarray]:
    """Data set and seed; for each row and picture 100 if it is right, and nll: (rows, 2, N)."""
    import torch
    import torch.nn.functional as F

    from models.fit import fit_weights

    spotlighter, gda = open_both(model_dir, root)
    with torch.no_grad():
        judged, test = held_out(spotlighter, gda), tested(spotlighter, gda)
    found = []
    for names in ROWS.values():
        columns = [PARTS.index(name) for name in names]
        fit = fit_weights([one._replace(parts=one.parts[..., columns]) for one in judged])
        logits = test.parts[..., columns].double() @ fit.weights.to(test.parts.device)
        nll = F.cross_entropy(logits, test.label, reduction="none")
        found.append(torch.stack([100.0 * (logits.argmax(1) == test.label), nll]).cpu().numpy())
    return (spotlighter.cfg.DATASET.NAME, spotlighter.cfg.SEED), np.stack(found)


def over_sets(found: dict[tuple[str, int], np.ndarray]) -> np.ndarray:
    """Means over data sets: (rows, 2, seeds, N)."""
    sets, seeds = (sorted({run[place] for run in found}) for place in (0, 1))
    if any((one, s) not in found for one in sets for s in seeds):
        got = ", ".join(f"{one} seed {s}" for one, s in found)
        raise ValueError(f"every data set needs a run of the same seeds, got {got}")
    return np.stack([np.mean([found[one, seed] for one in sets], 0) for seed in seeds], 2)


def differences(own: np.ndarray) -> list[str]:
    """Mean and interval of each score; `own` is (2, seeds, N)."""
    seeds, pictures = (np.arange(number) for number in own.shape[1:])

    def mean(pictures: np.ndarray, seeds: np.ndarray = seeds) -> np.ndarray:
        times = np.bincount(pictures, minlength=own.shape[-1]) / len(pictures)
        return (own @ times)[:, seeds].mean(1)

    low, high = interval([pictures, seeds] if len(seeds) > 1 else [pictures], mean)
    bounds = zip(mean(pictures), low, high, DIGITS, strict=True)
    return [f"{at:+.{d}f} [{least:+.{d}f}, {most:+.{d}f}]" for at, least, most, d in bounds]


def table(scores: np.ndarray) -> Iterator[dict[str, str]]:
    """A row for each of `ROWS`."""
    against = scores[list(ROWS).index(AGAINST)]
    for name, own in zip(ROWS, scores, strict=True):
        means = [f"{x:.{d}f}" for x, d in zip(own.mean((1, 2)), DIGITS, strict=True)]
        minus = ["", ""] if name == AGAINST else differences(own - against)
        yield {"parts": name} | dict(zip(COLUMNS, means + minus, strict=True))


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("model_dirs", nargs="+", type=Path, help="folders of Spotlighter runs")
    parser.add_argument("--root", default="", help="folder of all data sets, if it moved")
    add_wide(parser)
    args = parser.parse_args(argv)
    with quiet():
        found = dict(measure(one, args.root) for one in args.model_dirs)
    rows, width = pd.DataFrame(table(over_sets(found))), room(wide=args.wide)
    print(fitted(rows, width, COLUMNS[2:], disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
