r"""Run a grid of protocols, trainers, data sets, shots and seeds, on Ray or without it.

Usage:
    python tools/sweep.py --trainers CoOp Spotlighter --datasets emoji_food emoji_faces --dry-run
    python tools/sweep.py --protocols base2new xd --trainers CoOp Spotlighter:tiny_emoji_pruned \
        --datasets emoji_food emoji_faces --seeds 1 2 3 --processes 2 --opts OPTIM.MAX_EPOCH 5

Jobs run on Ray: on this machine, or with --address on a cluster (docs/cluster.md). A job that left
results is not run again; a job that was killed resumes from its checkpoint, if it has one. If a
job's folder holds results of other settings or data, nothing is run. Jobs that failed are listed at
the end, and the exit code is 1. Jobs share imports: each is a child of a process that has done
them, on Linux (--isolate: each is a process that imports for itself).
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/sweep.py`
from runs.processes import exit_code_of, raise_at_sigterm
from tools.shared.command_line import parser_of, reports_user_errors, whole
from tools.sweeps import names
from tools.sweeps.done import require_own
from tools.sweeps.protocols import PROTOCOLS, Grid
from tools.sweeps.schedule import Schedule, State, longest_first, read_log
from tools.sweeps.workers import Launch, LocalWorkers, RayWorkers


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
    where.add_argument("--serial", action="store_true", help="without Ray, one job at a time")
    cores = {"nargs": "?", "const": os.cpu_count() or 1, "metavar": "N", "type": whole(1)}
    where.add_argument("--processes", **cores, help="without Ray, N jobs at a time (all cores)")
    where.add_argument("--address", help='of a Ray cluster, as "auto"')
    add("--threads", type=whole(1), default=1, help="CPU threads of each process (1)")
    add("--gpus", type=float, help="GPUs for each job on Ray, as 0.5 (1 where there are any)")
    add("--torchrun", type=whole(1), default=1, metavar="N", help="N processes for each job")
    add("--isolate", action="store_true", help="have each job import for itself")
    add("--retries", type=whole(0), default=1, help="further attempts at a job that failed (1)")
    add("--dry-run", action="store_true", help="print the jobs, run none")
    add("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="for train.py")
    return parser.parse_args(arguments)


def draw_missing(used: Sequence[tuple[str, str]], project: Path) -> None:
    """Draw the missing ones of embedded data sets (roots, stems), so that no two jobs do."""
    embedded = [project / root / name for root, name in used if names.is_embedded(name)]
    for folder in embedded:
        if not folder.is_dir():
            from dassl.data.datasets import DATASET_REGISTRY

            from datasets.emoji import ensure_dataset

            kind = DATASET_REGISTRY.get(names.dataset_name(folder.name))
            ensure_dataset(folder, kind.split_file, kind.set_name, kind.domain)


def show_plan(schedule: Schedule, launch: Launch) -> None:
    """Print every job, whether it is done, and its command line."""
    for job in schedule.jobs:
        if job in schedule.states:
            print(f"done: {job.name}")
            continue
        needs = [other.name for other in schedule.needed(job) if other not in schedule.states]
        print(f"to run: {job.name}{', after ' if needs else ''}{', '.join(needs)}")
        print(f"  {shlex.join(launch.command(job))}")
    print(f"{len(schedule.jobs)} jobs, {len(schedule.states)} done")


def show_failures(schedule: Schedule) -> int:
    """Print what failed, with the end of its log, and how many jobs need it; returns 1, or 0."""
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    for job, reason in schedule.reasons.items():
        log = schedule.project / job.log
        tail = "\n".join(read_log(log).splitlines()[-15:]) or "(no output)"
        console.print(f"failed: {job.name}: {reason}; the end of {log}:\n{tail}")
    failed, skipped = len(schedule.reasons), list(schedule.states.values()).count(State.SKIPPED)
    if failed:
        console.print(f"{failed} of {len(schedule.jobs)} jobs failed, {skipped} need them")
    return 1 if failed else 0


def run(args: argparse.Namespace) -> int:
    """Plan the jobs, run those that are not done; returns the exit code."""
    grid = Grid(**{field.name: getattr(args, field.name) for field in fields(Grid)})
    launch = Launch(names.PROJECT, args.threads, args.torchrun, args.isolate)
    jobs = grid.jobs() if args.serial else longest_first(grid.jobs())
    require_own(jobs, names.PROJECT)
    schedule = Schedule(jobs, args.retries, names.PROJECT)
    if args.dry_run:
        show_plan(schedule, launch)
        return 0
    draw_missing(grid.used(), names.PROJECT)
    if not schedule.left():
        print(f"all {len(jobs)} jobs were done before")
        return 0
    with schedule.bars.progress:
        if args.serial or args.processes:
            schedule.run(LocalWorkers(launch, args.processes or 1))
        else:
            schedule.run(RayWorkers(launch, args.address, args.gpus))
    return show_failures(schedule)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; 130 or 143 if it is interrupted."""
    args = parse_arguments(arguments)
    raise_at_sigterm()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored behind a shell's &
    try:
        return run(args)
    except KeyboardInterrupt as interrupt:
        print("sweep: stopped; the same command goes on from here", file=sys.stderr)
        return exit_code_of(interrupt)


if __name__ == "__main__":
    sys.exit(main())
