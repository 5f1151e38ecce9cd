"""Mean and spread over the seeds of an experiment, by CoOp's old name and with its flags.

Usage:
    python tools/parse_test_res.py output/dtd/MaPLe/vit_b16_c2_ep5_batch4_2ctx_16shots --ci95
    python tools/parse_test_res.py output/my_experiments --multi-exp
    python tools/parse_test_res.py output/my_experiment --keyword macro_f1

The folder holds a folder a seed (with --multi-exp, a folder an experiment) with log.txt. Runs whose
results.json differ in more than the seed are refused. Tables
over trainers and data sets come from tools/collect_results.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/parse_test_res.py`
from tools.results.read import KEY, newest_log, read_results
from tools.results.rows import name_settings
from tools.shared.command_line import parser_of, reports_user_errors


def read_seeds(folder: Path, keyword: str) -> dict[Path, float]:
    """Final results in percent by folder; a seed that did not finish is said and left out.

    Raises:
        ValueError: no seed has finished, or the runs are not of one experiment.
    """
    found = {}
    for log in sorted(folder.glob("*/log.txt")):
        try:
            found[log] = newest_log(log.parent, keyword)[1]
        except ValueError as error:
            print(f"skipped {log}: {error}", file=sys.stderr)
    if not found:
        raise ValueError(f"no finished log.txt in the folders of {folder}")
    require_one_experiment([log.with_name("results.json") for log in found])
    return found


def require_one_experiment(paths: list[Path]) -> None:
    """Refuse to average runs that differ in more than the seed, as far as they say what they were.

    Raises:
        ValueError: names two of them and what differs.
    """
    runs = name_settings(read_results(path) for path in paths if path.is_file())
    for other in runs[1:]:
        names = [name for name in (*KEY, "classes") if name != "seed"]
        if differ := [name for name in names if runs[0][name] != other[name]]:
            one, two = ("; ".join(str(run[name]) for name in differ) for run in (runs[0], other))
            raise ValueError(
                f"{runs[0]['path']} ({one}) and {other['path']} ({two}) differ in "
                f"{', '.join(differ)}, so they are not averaged as seeds; --multi-exp takes a "
                "folder for each experiment"
            )


def summarise(folder: Path, *, ci95: bool, keyword: str = "accuracy") -> float:
    """Print the seeds of a folder, and mean and spread; returns the mean.

    The spread is numpy's standard deviation (of the seeds as they are, not of a sample), as ever.
    """
    print(f"Parsing files in {folder}")
    found = read_seeds(folder, keyword)
    for log, result in found.items():
        rest = f" error: {100 - result:.2f}%." * (keyword == "accuracy")
        print(f"file: {log}. {keyword}: {result:.2f}%.{rest}")
    results = np.array(list(found.values()))
    spread = results.std() * (1.96 / len(results) ** 0.5 if ci95 else 1)
    print(f"===\nSummary of directory: {folder}")
    for name, mean in named(keyword, float(results.mean())):
        print(f"* {name}: {mean:.2f}% +- {spread:.2f}%")
    print("===")
    return float(results.mean())


def named(keyword: str, mean: float) -> list[tuple[str, float]]:
    """What is printed of a mean: beside an accuracy the error."""
    return [(keyword, mean)] + [("error", 100 - mean)] * (keyword == "accuracy")


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Summarise one experiment, or several; nothing found is exit code 2."""
    parser = parser_of(__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--ci95", action="store_true", help="95 %% confidence instead of deviation")
    parser.add_argument("--test-log", action="store_true", help="not needed: a log says what it is")
    parser.add_argument("--multi-exp", action="store_true", help="a folder an experiment")
    parser.add_argument("--keyword", default="accuracy", help="result to read, as macro_f1")
    args = parser.parse_args(arguments)
    folders = [args.directory]
    if args.multi_exp:
        folders = sorted(path for path in args.directory.glob("*") if path.is_dir())
    try:
        means = [summarise(folder, ci95=args.ci95, keyword=args.keyword) for folder in folders]
    except ValueError as error:
        print(f"parse_test_res: error: {error}", file=sys.stderr)
        return 2
    if args.multi_exp:
        print("Average performance")
        for name, mean in named(args.keyword, float(np.mean(means))):
            print(f"* {name}: {mean:.2f}%")
    return 0


if __name__ == "__main__":
    sys.exit(main())
