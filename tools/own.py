r"""Your own photos: check a folder, train three models on it, show what they get wrong, export one.

FOLDER holds a folder of pictures for each class (docs/datasets.md has the other forms). Zero-shot
CLIP, a simple rival and Spotlighter are run on it; runs that are done are not repeated. Everything
is written to a folder of its own: results, a page, predictions.csv of each run, a model for other
programs. Nothing is written to FOLDER.

Usage:
    python tools/own.py my_photos
    python tools/own.py my_photos --config vit_b16 --shots 8 --output results_of_my_photos
    python tools/own.py my_photos --dry-run
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/own.py`
from datasets.pictures import open_picture
from runs.config import default_config, merge_file
from runs.logs import quiet
from runs.processes import content_of_results, exit_code_of, raise_at_sigterm
from tools import check_data, collect_results, export, report
from tools.check_data import Pictures, Subject, some
from tools.results.terminal import add_wide
from tools.shared.command_line import parser_of, reports_user_errors, whole
from tools.sweep import show_failures
from tools.sweeps import names
from tools.sweeps.done import require_own
from tools.sweeps.protocols import Grid, Job, learns_nothing
from tools.sweeps.schedule import Schedule
from tools.sweeps.workers import Launch, LocalWorkers

if TYPE_CHECKING:
    import torch

    from tools.shared import cost

# The simple rival: the first of these trainers that there is.
RIVAL = next(name for name in ("GDA", "CoOp") if name in names.default_rows())
TRAINERS = ("ZeroshotCLIP", RIVAL, "Spotlighter")
# --config: the column of configs/trainers/defaults.yaml, and the backbone.
CONFIGS = {
    "tiny": ("tiny", "tiny-emoji"), "vit_b16": ("vit_b16", "ViT-B/16"),
    "vit_b32": ("vit_b16", "ViT-B/32"), "vit_l14": ("vit_b16", "ViT-L/14"),
}
TINY = """\
The tiny CLIP comes with the project and has seen drawings of emoji alone: it shows how things work.
For photographs take --config vit_b16, which is fetched (350 MB) and needs much more time."""
SHOTS, SEED = 16, 1
BANK_PASSES = 5  # of a bank or of features at hand: the pictures and four views of each
SAMPLE = 8  # pictures that are decoded to know how long one takes
FEW = 100  # test pictures, below which chance is mentioned
MOST_WORKERS = 8


@dataclass
class Plan:
    """What is run on a folder."""

    root: Path
    subject: Subject
    config: str  # of CONFIGS
    shots: int
    device: torch.device
    output: Path
    trainers: tuple[str, ...] = TRAINERS
    opts: list[str] = field(default_factory=list)  # KEY VALUE pairs for train.py
    notes: list[str] = field(default_factory=list)  # what is done instead of what was asked

    @property
    def test(self) -> int:
        """Number of test pictures."""
        return len(self.subject.splits["test"])

    def drawn(self) -> int:
        """Number of training pictures, after the shots are drawn."""
        counts = Counter(item.label for item in self.subject.splits.get("train", ()))
        return sum(min(self.shots, count) for count in counts.values())

    def config_of(self, trainer: str) -> str:
        """The stem of a trainer's yaml."""
        return str(names.default_rows()[trainer][CONFIGS[self.config][0]])

    def jobs(self) -> list[Job]:
        """The runs."""
        specs = [f"{trainer}:{self.config_of(trainer)}" for trainer in self.trainers]
        where = {"output": self.output, "root": str(self.root), "opts": tuple(self.opts)}
        numbers = {"seeds": (SEED,), "shots": (self.shots,)}
        return Grid(("fewshot",), specs, (names.OWN_STEM,), **numbers, **where).jobs()


def look(root: Path, show: int) -> tuple[Subject, Pictures]:
    """Check the pictures; print how many there are, and the findings."""
    if not root.exists():
        raise FileNotFoundError(f"there is no folder {root}; name the one that holds your photos")
    subject = check_data.open_subject(names.OWN, root)
    pictures = check_data.examine(subject, os.cpu_count() or 1, quick=False)
    parts = ", ".join(f"{len(items):,} {split}" for split, items in subject.splits.items())
    total, classes = some(list(subject.items())), subject.dataset.classnames
    print(f"{root}: {total} ({parts}), {some(classes, 'class', 'es')}")
    findings = check_data.findings_of(subject, pictures)
    for finding in sorted(findings, key=lambda finding: finding.note):  # faults are seen first
        print(finding.text(show))
    if len(classes) > 1 and not all(finding.note for finding in findings):
        print("The accuracies below are not to be trusted until what is called FAULT is mended.")
    return subject, pictures


def decide(args: argparse.Namespace, subject: Subject, pictures: Pictures) -> Plan:
    """Choose device, config and shots; a ValueError says that there is nothing to compare."""
    import torch

    names_of_classes = subject.dataset.classnames
    if len(names_of_classes) < 2:
        raise ValueError(
            f"{args.folder} has one class, {names_of_classes[0]}; make a folder for each class, "
            "two at least"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = args.config or ("tiny" if device.type == "cpu" else "vit_b16")
    output = args.output or names.PROJECT / "output" / "own" / subject.dataset.label / config
    plan = Plan(args.folder, subject, config, args.shots, device, output.absolute())
    if plan.output.resolve().is_relative_to(subject.dataset.folder.resolve()):
        raise ValueError(f"--output {output} lies in the folder of the photos; choose another one")
    note_what_is_short(plan, pictures)
    plan.opts += ["MODEL.BACKBONE.NAME", CONFIGS[config][1]] if config.startswith("vit_") else []
    workers = min(MOST_WORKERS, os.cpu_count() or 1) if device.type == "cuda" else 0
    plan.opts += ["DATALOADER.NUM_WORKERS", str(workers)]
    return plan


def note_what_is_short(plan: Plan, pictures: Pictures) -> None:
    """Change a plan where classes or pictures are too few for it, and say so in its notes."""
    subject, notes, classes = plan.subject, plan.notes, plan.subject.dataset.classnames
    if bad := pictures.missing | pictures.unreadable.keys():
        it_is = "it is" if len(bad) == 1 else "they are"
        notes.append(f"{some(bad)} cannot be read; {it_is} left out")
        plan.opts += ["DATALOADER.SKIP_UNREADABLE", "True"]
    train = Counter(item.label for item in subject.splits.get("train", ()))
    if not train:
        plan.trainers, plan.shots = TRAINERS[:1], 0
        notes.append("there are no training pictures, so zero-shot CLIP alone is run")
        return
    if (most := max(train.values())) < plan.shots:
        instead = f"{some(range(most), 'shot')} instead of {plan.shots}"
        notes.append(f"{instead}: no class has more training pictures")
        plan.shots = most
    if short := [name for n, name in enumerate(classes) if train[n] < plan.shots]:
        what = f"all training pictures of {some(short, 'class', 'es')} with fewer than {plan.shots}"
        notes.append(f"{what} are taken: {', '.join(short[:5])}{' ...' * (len(short) > 5)}")
    if empty := subject.empty_classes("test"):
        which = ", ".join(empty[:5])
        notes.append(f"no test picture of {which}: too few to divide, or none in test/")
    tested = sum(item.impath not in bad for item in subject.splits["test"])
    if 0 < tested < FEW:
        error = 50 / tested**0.5
        what = f"{some(range(tested), 'test picture')}: chance alone moves an accuracy by"
        notes.append(f"{what} up to {error:.0f} points (one standard error)")


def sample(subject: Subject) -> tuple[float, float]:
    """Seconds that it takes to decode a picture, and bytes that it takes then."""
    items = list(subject.items())
    sizes, start = [], time.perf_counter()
    for item in items[:: max(1, len(items) // SAMPLE)]:
        with contextlib.suppress(OSError, ValueError):
            picture = open_picture(item.impath)
            sizes.append(3 * picture.width * picture.height)
    number = max(1, len(sizes))
    return (time.perf_counter() - start) / number, sum(sizes) / number


def work_of(plan: Plan, trainer: str, *, keeps: bool) -> tuple[cost.Work, int]:
    """What a run has to do, and the pictures of its largest batch.

    `keeps` says whether decoded training pictures fit into memory.
    """
    from tools.shared import cost
    from trainers.base import trainer_named

    cfg, path = default_config(), names.CONFIGS / "trainers" / trainer
    merge_file(cfg, names.PROJECT / path / f"{plan.config_of(trainer)}.yaml")
    batch, tested = cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.DATALOADER.TEST.BATCH_SIZE
    if learns_nothing(trainer):
        return cost.Work(plan.test, 0, plan.test), min(tested, plan.test)
    computed = getattr(trainer_named(trainer), "computed", False)  # at once, without epochs
    epochs, drawn = 0 if computed else cfg.OPTIM.MAX_EPOCH, plan.drawn()
    passes = epochs + (BANK_PASSES if computed or trainer == "Spotlighter" else 0)
    decoded = plan.test + drawn * (1 + passes - epochs if keeps else passes)
    work = cost.Work(plan.test + passes * drawn, epochs * -(-drawn // batch), decoded)
    return work, max(min(batch, drawn), min(tested, plan.test))


def announce(plan: Plan) -> None:
    """Print what is going to be run, for how long, and in how much memory."""
    pairs = zip(plan.trainers, plan.jobs(), strict=True)
    left = [trainer for trainer, job in pairs if not job.is_done(names.PROJECT)]
    for note in plan.notes:
        print(f"note: {note}")
    what = ", ".join(left) or "nothing, as all is done"
    print(f"To run: {what}; {some(range(plan.shots), 'shot')}, --config {plan.config}")
    if left:
        announce_cost(plan, left)
    print(f"Results go to {plan.output}", flush=True)


def announce_cost(plan: Plan, trainers: Sequence[str]) -> None:
    """Print how long some trainers take, and how much memory; keep what fits into memory."""
    import torch

    from models.clip.text_tower import free_memory
    from tools.shared import cost

    backbone, classes = CONFIGS[plan.config][1], len(plan.subject.dataset.classnames)
    reading, one = sample(plan.subject)
    kept = one * plan.drawn()
    room = free_memory(torch.device("cpu")) / 2
    plan.opts += ["DATALOADER.CACHE_MB", str(int(min(kept, room) / 2**20) + 1)]
    size, rate = cost.measure(backbone, plan.device)
    found = [work_of(plan, trainer, keeps=kept <= room) for trainer in trainers]
    time_needed = sum(cost.seconds(size, work, classes, rate, reading) for work, _ in found)
    step = max(cost.memory(size, classes, batch) for _, batch in found)
    gigabytes = (cost.PROCESS + min(kept, room) + step * (plan.device.type == "cpu")) / 1e9
    print(f"CLIP {backbone} on {plan.device.type}: {rate:,.0f} pictures a second")
    if plan.config == "tiny":
        print(TINY)
    print(f"Time: about {minutes(time_needed)}. Memory: about {gigabytes:.1f} GB.")
    if plan.device.type == "cuda":
        print(f"GPU memory: about {step / 1e9:.1f} GB (a formula, not measured on a GPU).")


def minutes(seconds: float) -> str:
    """A time in words, rounded up: "1 minute", "12 minutes", "2.5 hours"."""
    whole_minutes = -(-int(seconds) // 60) or 1
    if whole_minutes > 90:
        return f"{whole_minutes / 60:.1f} hours"
    return some(range(whole_minutes), "minute")


def carry_out(plan: Plan, jobs: Sequence[Job]) -> int:
    """Run what is not done; returns 1 if a run failed, else 0."""
    require_own(jobs, names.PROJECT)
    schedule = Schedule(jobs, 0, names.PROJECT)
    if done := len(jobs) - len(schedule.left()):
        print(f"{some(range(done), 'run')} of {len(jobs)} done before", flush=True)
    if schedule.left():
        with schedule.bars.progress:
            threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
            schedule.run(LocalWorkers(Launch(names.PROJECT, threads, 1), 1))
    return show_failures(schedule)


def write_results(plan: Plan, jobs: Sequence[Job], *, wide: bool) -> None:
    """Print the table; write the page and the exported model of the last run."""
    from inference.graph import PACKAGES

    output, last = plan.output, jobs[-1].folder
    tables = ["--markdown", str(output / "results.md"), "--csv", str(output / "results.csv")]
    collect_results.main([str(output), *tables, *["--wide"] * wide])
    title, root = plan.root.name, str(plan.root)
    page = ["--title", title, "--root", root, "--by-class", "--wrong", str(last)]
    report.main([str(output), *page])
    has_onnx = all(map(importlib.util.find_spec, PACKAGES))
    kind, model = "both" if has_onnx else "torch", output / "model"
    where = ["--model-dir", str(last), "--output", str(model)]
    export.main([*where, "--format", kind, "--if-changed"])
    print()
    for trainer, job in zip(plan.trainers, jobs, strict=True):
        found = content_of_results(plan.output / job.folder)
        right = round(found["accuracy"] * found["n"] / 100)
        print(f"{trainer}: {right} of {found['n']} test pictures right ({found['accuracy']:.1f} %)")
    print(f"Page with the wrong pictures: {output / 'report.html'}")
    print(f"What was said of each picture: {last / 'predictions.csv'}")
    print(f"Model of {plan.trainers[-1]} for other programs: {model}")
    run = shlex.quote(str(last))
    print(f"New pictures: python tools/predict.py --images FOLDER --model-dir {run}")


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run it; 130 or 143 if it is interrupted, 1 if a run failed."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder of a folder of pictures for each class")
    add("--config", choices=CONFIGS, help="CLIP (tiny without a GPU, vit_b16 with one)")
    add("--shots", type=whole(1), default=SHOTS, help=f"training pictures of each class ({SHOTS})")
    add("--output", type=Path, metavar="DIR", help="folder to write to (output/own/NAME/CONFIG)")
    add("--show", type=whole(0), default=10, help="lines to print for each finding (10)")
    add("--dry-run", action="store_true", help="say what would be run, and run nothing")
    add_wide(parser)
    args = parser.parse_args(argv)
    args.folder = args.folder.expanduser().absolute()
    raise_at_sigterm()
    try:
        with quiet("datasets", level=logging.ERROR):  # its warnings are among the findings
            plan = decide(args, *look(args.folder, args.show))
            announce(plan)
            jobs = plan.jobs()
            if args.dry_run:
                return 0
            if code := carry_out(plan, jobs):
                return code
            write_results(plan, jobs, wide=args.wide)
    except KeyboardInterrupt as interrupt:
        print("own: stopped; the same command goes on from here", file=sys.stderr)
        return exit_code_of(interrupt)
    return 0


if __name__ == "__main__":
    sys.exit(main())
