"""How much classes without pictures may trust the levels: ridges, compared on classes held out.

Usage:
    python lab/held_out_classes.py emoji_animals emoji_food --seeds 1 2

`CAUTION` of models/spotlighter/evidence.py is such a ridge. Each third of the base classes is held
out in turn. On the others the weights of classes without pictures are fitted as Spotlighter fits
them, by kind of prototypes and ridge; `auto` takes the likelier kind. The third's training pictures
are then judged among the third's names. Prompts are not trained; test pictures and new classes are
never read. The table has mean differences to the base's logits, points of accuracy and nats, and
standard errors over thirds. `scaled` are the base's logits times a fitted weight.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from dassl.engine import build_trainer
from dassl.utils import set_random_seed

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python lab/held_out_classes.py`
from lab.validate import SHOTS, build_config
from models.spotlighter import KINDS
from runs.logs import quiet
from tools.results.cells import markdown_table
from tools.shared.command_line import parser_of, reports_user_errors

if TYPE_CHECKING:
    from torch import Tensor

    from models.spotlighter.evidence import Evidence

OUTPUT = Path("docs/results/held_out_classes.csv")
RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 1.0)
THIRDS, LEAST_CLASSES = 3, 6
TRIAL, SCORES = ["dataset", "seed", "third"], ["accuracy", "nll"]


def evidence_of(dataset: str, seed: int, root: str) -> Evidence:
    """The training pictures of the base classes, before any training."""
    import torch

    from models.spotlighter.evidence import Evidence, read

    where = {"trainer": "Spotlighter", "config": "tiny_emoji", "root": root, "seed": seed}
    args = argparse.Namespace(**where, shots=SHOTS, opts=[])
    with tempfile.TemporaryDirectory() as output:
        set_random_seed(seed)
        trainer = build_trainer(build_config(args, dataset, "base", output))
    classes = len(trainer.dm.dataset.classnames)
    if classes < LEAST_CLASSES:
        raise ValueError(f"{dataset} has {classes} base classes; {LEAST_CLASSES} are needed")
    trainer.set_model_mode("eval")
    pictures, views = trainer.pictures()
    with torch.no_grad():
        return Evidence(trainer.model, pictures, *read(trainer.model, pictures, views))


def deal_thirds(classes: int, seed: int) -> list[Tensor]:
    """Every class is in one third."""
    import torch

    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    return [order[place::THIRDS].sort().values for place in range(THIRDS)]


def score(parts: Tensor, weights: Tensor, label: Tensor) -> dict[str, float]:
    """Percent right, and nats a picture."""
    import torch.nn.functional as F

    logits = parts.double() @ weights.to(parts.device).double()
    right, nll = logits.argmax(1) == label, F.cross_entropy(logits, label)
    return {"accuracy": round(100 * right.double().mean().item(), 3), "nll": round(nll.item(), 5)}


def measure(evidence: Evidence, third: Tensor) -> list[dict[str, object]]:
    """A row for each kind and ridge, from the pictures of a third."""
    import torch

    with torch.no_grad():
        return list(rows_of(evidence, third))


def rows_of(evidence: Evidence, third: Tensor) -> Iterator[dict[str, object]]:
    """The rows of `measure`."""
    import torch

    from models.fit import Judged, deal_shots, fit_weights

    every = torch.arange(len(evidence.classes), device=third.device)
    rest, label = every[~torch.isin(every, third)], evidence.label
    inner, _ = evidence.hold_out_halves(rest, deal_shots(label))
    outer = evidence.hold_out(torch.isin(label, third), rest)._replace(classes=third)
    judged = [evidence.of_class_token(one, evidence.side(one)) for one in (*inner, outer)]
    *judged, last = [Judged(one.parts[..., :1], one.label) for one in judged]
    yield {"kind": "base"} | score(last.parts, torch.ones(1), last.label)
    yield {"kind": "scaled"} | score(last.parts, fit_weights(judged, 0.0).weights, last.label)
    for ridge in RIDGES:
        found = []
        for row, kind in enumerate(KINDS):
            evidence.fit_new_candidates(kind, inner, ridge)
            sides = [(one, evidence.side(one, kind)) for one in (*inner, outer)]
            *judged, last = evidence.judge(sides)
            nll = evidence.fit_new_parts(kind, judged, ridge)
            found.append((nll, score(last.parts, evidence.head.new_parts[row], last.label)))
            yield {"kind": kind, "ridge": ridge} | found[-1][1]
        yield {"kind": "auto", "ridge": ridge} | min(found, key=lambda one: one[0])[1]


def differences(found: pd.DataFrame) -> pd.DataFrame:
    """What each kind and ridge adds to the base's logits: a mean and its standard error."""
    base = found[found.kind == "base"].set_index(TRIAL)[SCORES]
    other = found[found.kind != "base"].set_index([*TRIAL, "ridge", "kind"])[SCORES]
    grouped = other.sub(base).groupby(["kind", "ridge"], dropna=False, sort=False)
    columns = {f"{name} {of}": (name, of) for name in SCORES for of in ("mean", "sem")}
    return grouped.agg(**columns).reset_index()


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the rows, print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("datasets", nargs="+", help="stems of configs/datasets")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="random seeds (1)")
    parser.add_argument("--root", default="data", help="folder of all data sets (data)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"CSV of the rows ({OUTPUT})")
    args = parser.parse_args(argv)
    rows: list[dict[str, object]] = []
    for seed, dataset in itertools.product(args.seeds, args.datasets):
        with quiet():
            evidence = evidence_of(dataset, seed, args.root)
        for number, third in enumerate(deal_thirds(len(evidence.classes), seed)):
            trial = dict(zip(TRIAL, (dataset, seed, number), strict=True))
            rows += [trial | row for row in measure(evidence, third.to(evidence.label.device))]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    (found := pd.DataFrame(rows)).to_csv(args.output, index=False)
    print(markdown_table(differences(found), floatfmt=("", "", ".2f", ".2f", ".4f", ".4f")))
    accuracy, nll = found[found.kind == "base"][SCORES].mean()
    print(f"\n{len(found.groupby(TRIAL))} thirds; the base has {accuracy:.2f} %, {nll:.3f} nats")
    return 0


if __name__ == "__main__":
    sys.exit(main())
