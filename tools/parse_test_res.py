"""Print mean and deviation over the seeds of an experiment, with the flags of CoOp's script.

Usage:
    python tools/parse_test_res.py output/dtd/MaPLe/vit_b16_c2_ep5_batch4_2ctx_16shots --ci95
    python tools/parse_test_res.py output/my_experiments --multi-exp
    python tools/parse_test_res.py output/my_experiment --keyword macro_f1

The folder holds a folder for each seed (with --multi-exp, for each experiment) with log.txt. Runs
whose results.json differ in more than the seed are refused. As in CoOp's, the standard deviation is
that of a population (n). Tables over trainers and data sets come from tools/collect_results.py.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/parse_test_res.py`
from tools.results.read import KEY, newest_log, read_results
from tools.results.rows import POPULATION, name_settings
from tools.shared.command_line import parser_of, reports_user_errors


def read_seeds(folder: Path, keyword: str) -> dict[Path, float]:
    """Return final results in percent by log; an unfinished seed is reported and left out."""
    found = {}
    for log in sorted(folder.glob("*/log.txt")):
        try:
            found[log] = newest_log(log.parent, keyword)[1]
        except ValueError as error:
            print(f"skipped {log}: {error}", file=sys.stderr)
    if not found:
        raise ValueError(f"no finished log.txt in the folders of {folder}")
    paths = [log.with_name("results.json") for log in found]
    runs = name_settings(read_results(path) for path in paths if path.is_file())
    names = [name for name in (*KEY, "classes") if name != "seed"]
    for other in runs[1:]:
        if differ := [name for name in names if runs[0][name] != other[name]]:
            one, two = ("; ".join(str(run[name]) for name in differ) for run in (runs[0], other))
            raise ValueError(
                f"{runs[0]['path']} ({one}) and {other['path']} ({two}) differ in "
                f"{', '.join(differ)}, so they are not averaged as seeds; --multi-exp takes a "
                "folder for each experiment"
            )
    return found


def summarise(folder: Path, *, ci95: bool, keyword: str) -> float:
    """Print the seeds of a folder, their mean and deviation; returns the mean."""
    print(f"Parsing files in {folder}")
    found = read_seeds(folder, keyword)
    for log, result in found.items():
        rest = f" error: {100 - result:.2f}%." * (keyword == "accuracy")
        print(f"file: {log}. {keyword}: {result:.2f}%.{rest}")
    results = list(found.values())
    mean, deviation = np.mean(results), np.std(results, ddof=POPULATION)
    spread = 1.96 * deviation / len(results) ** 0.5 if ci95 else deviation
    print(f"===\nSummary of directory: {folder}")
    print_mean(keyword, mean, f" +- {spread:.2f}%")
    print("===")
    return mean


def print_mean(keyword: str, mean: float, rest: str = "") -> None:
    """Print a mean in percent; for an accuracy, the error too."""
    print(f"* {keyword}: {mean:.2f}%{rest}")
    if keyword == "accuracy":
        print(f"* error: {100 - mean:.2f}%{rest}")


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Summarise one experiment, or several."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("directory", type=Path)
    add("--ci95", action="store_true", help="95 %% confidence interval instead of the deviation")
    add("--test-log", action="store_true", help="not needed: both kinds of logs are recognised")
    add("--multi-exp", action="store_true", help="the folder holds a folder for each experiment")
    add("--keyword", default="accuracy", help="result to read, as macro_f1 (accuracy)")
    args = parser.parse_args(arguments)
    folders = [args.directory]
    if args.multi_exp:
        folders = sorted(path for path in args.directory.glob("*") if path.is_dir())
    means = [summarise(folder, ci95=args.ci95, keyword=args.keyword) for folder in folders]
    if args.multi_exp:
        print("Average performance")
        print_mean(args.keyword, np.mean(means))
    return 0


if __name__ == "__main__":
    sys.exit(main())
