"""One protocol for one trainer, data set and seed, in the foreground; scripts/*.sh call it."""

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/run_protocol.py`
from runs.processes import Terminated, bound, exit_code_of, raise_at_sigterm
from tools.sweeps import names
from tools.sweeps.awake import PATIENCE, PRELOAD, Child, become_train, preload
from tools.sweeps.done import require_own
from tools.sweeps.protocols import PROTOCOLS, SHOTS, Cell, Job, join, plan

ARGUMENTS = """\
  TRAINER  a folder in configs/trainers: CoOp, MaPLe, PromptKD, Spotlighter, ZeroshotCLIP ...
  DATASET  a file in configs/datasets: emoji_food, caltech101 ...; the source of xd and dg
  SEED     0, 1, 2 ...
  CFG      a file in configs/trainers/TRAINER (tiny_emoji for emoji_* data sets, else ViT-B/16)
  SHOTS    training pictures for each class (fewshot: "1 2 4 8 16", else 16); 0: all

--root, or DATA in the environment, is the folder that holds the data sets (data). OUTPUT is where
results go (output/base2new for base2new, output for others); TARGETS, of xd and dg, the data sets
to test on, in --target-root DIR if they are not in --root; OPTS, further settings, as
OPTS="OPTIM.LR 0.01 OPTIM.MAX_EPOCH 5".
A run that left results.json is not repeated; one that crashed is. If a run's folder holds results
of other settings or data, nothing is run. Imports are done once for all runs; --isolate: for each.

example:
  bash scripts/{protocol}.sh {trainer} emoji_food 1"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line and the environment."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    name = words[0] if words and words[0] in PROTOCOLS else PROTOCOLS[0]
    trainer = "ZeroshotCLIP" if name == "zeroshot" else "CoOp"
    parser = argparse.ArgumentParser(
        usage=f"bash scripts/{name}.sh TRAINER DATASET SEED [CFG] [SHOTS] [--root DIR]",
        epilog=ARGUMENTS.format(protocol=name, trainer=trainer),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    get = os.environ.get
    parser.add_argument("protocol", choices=PROTOCOLS, help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--root", default=get("DATA") or "data", help=argparse.SUPPRESS)
    parser.add_argument("--target-root", default="", help=argparse.SUPPRESS)
    parser.add_argument("--isolate", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    args.help = parser.format_help()
    args.output = get("OUTPUT") or ("output/base2new" if args.protocol == "base2new" else "output")
    args.targets, args.opts = (tuple((get(key) or "").split()) for key in ("TARGETS", "OPTS"))
    return args


def jobs_of(args: argparse.Namespace) -> list[Job]:
    """Return the jobs that the command line asks for; a ValueError if an argument is wrong."""
    if not 3 <= len(args.words) <= 5:
        raise ValueError(f"expected 3 to 5 arguments, got {len(args.words)}")
    trainer, dataset, seed, config, shots = [*args.words, "", ""][:5]
    if not seed.isdecimal():
        raise ValueError(f"SEED must be a whole number from 0, got {seed}")
    if not all(word.isdecimal() for word in shots.split()):
        raise ValueError(f"SHOTS must be a whole number, got {shots}")
    common = {"output": Path(args.output), "config": config, "root": args.root}
    common |= {"targets": args.targets, "opts": args.opts, "target_root": args.target_root}
    place = (args.protocol, trainer, dataset, int(seed))
    numbers = shots.split() or SHOTS[args.protocol]
    return join([plan(Cell(*place, shots=int(number), **common)) for number in numbers])


def carry_out(job: Job, forked: bool = False) -> int:
    """Run a job to its end, to its exit code. What ends this process ends the job, too."""
    process: Child | subprocess.Popen = fork(job) if forked else as_process(job)
    try:
        return process.wait()
    except Terminated:
        pass
    except KeyboardInterrupt:  # it reaches the job from the terminal, and the job reports it
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(PATIENCE)
    process.terminate()
    return process.wait()


def as_process(job: Job) -> subprocess.Popen:
    """Start a job as a process that imports all that it needs."""
    command = [sys.executable, "train.py", *job.words]
    return subprocess.Popen(command, cwd=names.PROJECT, preexec_fn=bound())


def fork(job: Job) -> Child:
    """Start a job as a child, which has what is imported here; the child does not return."""
    bind = bound()
    if not (pid := os.fork()):
        bind()
        become_train(names.PROJECT, job.words)
    return Child(pid)


def ready_to_fork() -> bool:
    """Import what several runs need; whether they can be children of this process."""
    if sys.platform != "linux":
        return False
    try:
        return preload(PRELOAD)
    except Exception:  # the run says it
        return False


def run_all(jobs: Sequence[Job], isolate: bool) -> int:
    """Run the jobs that are not done, in order, to the first exit code that is not 0."""
    left = [job for job in jobs if not job.is_done(names.PROJECT)]
    forked = len(left) > 1 and not isolate and ready_to_fork()
    for job in jobs:
        if job.is_done(names.PROJECT):
            print(f"{job.name}: done, see {job.folder}", flush=True)
        elif code := carry_out(job, forked):
            return code
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Read what is asked for, and run it; returns the exit code."""
    args = parse_arguments(arguments)
    raise_at_sigterm()
    jobs = None
    try:
        jobs = jobs_of(args)
        require_own(jobs, names.PROJECT)
    except (ValueError, OSError) as error:
        message = f"error: {' '.join(str(error).split())}"
        if jobs is None and isinstance(error, ValueError):  # of the arguments
            message = f"{error}.\n\n{args.help}"
        print(f"{args.protocol}: {message}", file=sys.stderr)
        return 2
    try:
        return run_all(jobs, args.isolate)
    except KeyboardInterrupt as interrupt:  # between two runs; a run reports it itself
        print(f"{args.protocol}: stopped; the same command goes on from here", file=sys.stderr)
        return exit_code_of(interrupt)


if __name__ == "__main__":
    sys.exit(main())
