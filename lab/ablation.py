"""Effect of each part of Spotlighter: one setting is changed at a time, base to new classes.

Usage:
    python lab/ablation.py emoji_animals emoji_food --seeds 1 --output output/ablation

Every variant is run by scripts/base2new.sh with a setting of VARIANTS behind those of OPTS, such as
OPTS="FEATURES.KEEP disk"; finished runs are not repeated. The table, means over data sets and
seeds, goes to standard output and to OUTPUT/ablation.md. Its first row is the unchanged config.
"""

import argparse
import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python lab/ablation.py`
from runs.processes import bound
from tools.results.cells import markdown_table
from tools.results.rows import load_runs, pair_runs
from tools.shared.command_line import parser_of, reports_user_errors

PROJECT = Path(__file__).parents[1]
OUTPUT = Path("output/ablation")
FORMATS = ("", ".2f", ".2f", ".2f", ".3f", ".3f", "")  # of the table's columns
NODE = "TRAINER.SPOTLIGHTER."
VARIANTS = {
    "as configured": "",
    "selection: sample-wise alone": "SELECT sample",
    "selection: semantic-wise alone": "SELECT semantic",
    "selection: patches at random": "SELECT random",
    "selection: similarity as sample-wise score": "SCORE similarity",
    "unseen classes: inherit": "NEW inherit",
    "unseen classes: text": "NEW text",
    "unseen classes: off": "NEW off",
    "one level": "LEVEL1 5",
    "fitted without patch levels": "LEVELS ('global',)",
    "TOKENS raw": "TOKENS raw",
    "TOPK 1": "TOPK 1",
    "TOPK 3": "TOPK 3",
    "TOPK 8": "TOPK 8",
    "TOPK 16": "TOPK 16",
    "PROTOTYPES 5": "PROTOTYPES 5",
    "PROTOTYPES 32": "PROTOTYPES 32",
    "VIEWS 0": "VIEWS 0",
    "VIEWS 1": "VIEWS 1",
    "VIEWS 8": "VIEWS 8",
}


def options(variant: str) -> str:
    """The settings of a variant as train.py takes them."""
    key, _, value = VARIANTS[variant].partition(" ")
    return f"{NODE}{key} {value}" if key else ""


def folder(output: Path, variant: str) -> Path:
    """The folder of a variant's runs."""
    words = "".join(c if c.isalnum() else "_" for c in VARIANTS[variant]) or "as_configured"
    return output / words


def run(args: argparse.Namespace, variant: str, dataset: str, seed: int) -> None:
    """One pair of runs; raises ChildProcessError where it fails."""
    command = ["bash", "scripts/base2new.sh", "Spotlighter", dataset, str(seed)]
    output = str(folder(args.output, variant).absolute())
    opts = f"{os.environ.get('OPTS', '')} {options(variant)}".strip()
    environment = os.environ | {"OUTPUT": output, "OPTS": opts}
    captured = {"capture_output": True, "text": True, "preexec_fn": bound()}
    done = subprocess.run(command, cwd=PROJECT, env=environment, check=False, **captured)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ChildProcessError(f"{variant} on {dataset}, seed {seed}: {last}")


def table(args: argparse.Namespace) -> pd.DataFrame:
    """A row for each variant that has runs: means over data sets and seeds."""
    rows = []
    for variant in VARIANTS:
        pairs = pair_runs(load_runs(folder(args.output, variant)))
        if len(pairs):
            means = pairs[["base", "new", "hm"]].mean()
            nll = {f"nll {half}": pairs[f"nll_{half}"].mean() for half in ("base", "new")}
            rows.append({"variant": variant, **means, **nll, "pairs of runs": len(pairs)})
    return pd.DataFrame(rows)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the missing variants; print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("datasets", nargs="+", help="stems of configs/datasets")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="one run each (1)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"of all runs ({OUTPUT})")
    args = parser.parse_args(argv)
    try:
        for variant in VARIANTS:
            for dataset, seed in itertools.product(args.datasets, args.seeds):
                run(args, variant, dataset, seed)
            print(f"{variant}: done", file=sys.stderr, flush=True)
    except (ChildProcessError, OSError) as error:
        sys.stderr.write(f"ablation: error: {error}\n")
        return 1
    text = markdown_table(table(args), floatfmt=FORMATS)
    (args.output / "ablation.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
