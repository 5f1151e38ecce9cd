r"""Run a grid of protocols, trainers, data sets, shots and seeds, on Ray or without it.

Usage:
    python tools/sweep.py --trainers CoOp Spotlighter --datasets emoji_food emoji_faces --dry-run
    python tools/sweep.py --protocols base2new xd --trainers CoOp Spotlighter:tiny_emoji_pruned \
        --datasets emoji_food emoji_faces --seeds 1 2 3 --processes 2 --opts OPTIM.MAX_EPOCH 5

Jobs run on Ray: on this machine, or with --address on a cluster (docs/cluster.md). A job that left
results is never run twice; one that was killed goes on from its checkpoint, if it has one. Results
of other settings or data in a job's folder are no results of the job: nothing is run then. What
failed is listed at the end, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/sweep.py`
from runs.processes import exit_code_of, raise_at_sigterm
from tools.shared.command_line import parser_of, reports_user_errors, whole
from tools.sweeps import names
from tools.sweeps.done import require_own
from tools.sweeps.execute import Here, Launch
from tools.sweeps.grid import Grid, draw_missing
from tools.sweeps.on_ray import OnRay
from tools.sweeps.progress import Bars, show_failures, show_plan
from tools.sweeps.protocols import PROTOCOLS
from tools.sweeps.schedule import Schedule, Workers


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; KEY VALUE pairs stand at its end."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--protocols", nargs="+", choices=PROTOCOLS, default=["base2new"])
    add("--trainers", nargs="+", required=True, metavar="TRAINER[:CONFIG]")
    add("--datasets", nargs="+", required=True, help="stems of configs/datasets; sources of xd, dg")
    add("--targets", nargs="+", default=[], help="of xd and dg (all others; the source's shifts)")
    add("--seeds", nargs="+", type=whole(0), default=[1])
    add("--shots", nargs="+", type=whole(0), default=[], help="(fewshot: 1 2 4 8 16; others: 16)")
    add("--root", default="data", help="folder of all data sets")
    add("--target-root", default="", help="folder of the targets' data, if it is another")
    add("--output", type=Path, default=Path("output/sweep"))
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--serial", action="store_true", help="without Ray, one after the other")
    where.add_argument(
        "--processes",
        type=whole(1),
        nargs="?",
        const=os.cpu_count() or 1,
        metavar="N",
        help="without Ray, N jobs at a time (as many as there are cores)",
    )
    where.add_argument("--address", help='of a Ray cluster, as "auto"')
    add("--threads", type=whole(1), default=1, help="CPU threads of each process (1)")
    add("--gpus", type=float, help="GPUs a job on Ray, as 0.5 (1 where there are any)")
    add("--torchrun", type=whole(1), default=1, metavar="N", help="N processes a job, a GPU each")
    add("--retries", type=whole(0), default=1, help="further attempts at a job that failed (1)")
    add("--dry-run", action="store_true", help="print the jobs, run none")
    add("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="for train.py")
    return parser.parse_args(arguments)


def workers(args: argparse.Namespace, launch: Launch) -> Workers:
    """Where the jobs run."""
    if args.serial or args.processes:
        return Here(launch, args.processes or 1)
    return OnRay(launch, args.address, args.gpus)


def run(args: argparse.Namespace) -> int:
    """Plan, and carry out what is not done yet; returns the exit code."""
    given = {key: tuple(getattr(args, key)) for key in ("protocols", "trainers", "datasets")}
    given |= {key: tuple(getattr(args, key)) for key in ("seeds", "shots", "targets", "opts")}
    roots = {"root": args.root, "target_root": args.target_root}
    grid = Grid(**given, output=args.output, **roots)
    launch = Launch(args.threads, args.torchrun, names.PROJECT)
    jobs = grid.jobs()
    require_own(jobs, launch.project)
    schedule = Schedule(jobs, args.retries, launch.project)
    if args.dry_run:
        show_plan(schedule, launch)
        return 0
    draw_missing(grid.used(), launch.project)
    if not schedule.left():
        print(f"all {len(schedule.jobs)} jobs were done before")
        return 0
    bars = Bars(schedule, launch.project)
    with bars.progress:
        schedule.run(workers(args, launch), bars)
    return show_failures(schedule, launch.project)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run; a mistake of the user's ends in one sentence and exit code 2."""
    args = parse_arguments(arguments)
    raise_at_sigterm()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored behind a shell's &
    try:
        return run(args)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"sweep: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print("sweep: stopped; the same command goes on from here", file=sys.stderr)
        return exit_code_of(interrupt)


if __name__ == "__main__":
    sys.exit(main())
