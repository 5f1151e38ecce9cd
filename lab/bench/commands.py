"""The measurements of each command, one condition after the other."""

import argparse
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch
from torch import nn

from lab.bench import FORMS, STORED, launches
from lab.bench.backbones import QUICK, Schedule, parse_schedule, recommended_schedule, tower_size
from lab.bench.clock import REPORT, Clock
from lab.bench.loaders import CLASSES, Source, time_end_to_end, time_loader, write_pictures
from lab.bench.measure import Bench
from lab.bench.rows import Row
from lab.bench.stored import Course, time_course, time_second
from lab.bench.tower import time_tower

PUBLISHED_BATCHES = {"CoOp": [32], "CoCoOp": [1], "MaPLe": [4], "PromptSRC": [4]}
PUBLISHED_BATCHES |= {"TextRefiner": [8], "Spotlighter": [8, 32]}
EVAL_BATCHES = [32]
SWEEPS = {"classes": [10, 100, 1000], "batch": [1, 4, 16, 64]}
KEPT = (3 / 4, 1 / 2, 1 / 4, 1 / 12)  # shares of the patches, in the first recommended block
# Of --quick:
SOME, MANY = 100, 1000  # classes
BATCH = 32  # of evaluations
TRAINED = ("CoOp", "CoCoOp", "MaPLe", "Spotlighter")
ONLY_CHECKED = ("PromptSRC", "TextRefiner")
CLOCK = Clock(warmup=1, rounds=5, round_s=0.0, budget_s=4.0)


def measure(args: argparse.Namespace) -> Iterator[list[Row]]:
    """The rows of a command, condition by condition."""
    commands = {"train": models, "eval": models, "loader": loader, "end2end": end_to_end}
    commands |= {"run": courses, "second": second, "tower": tower}
    return commands[args.command](args)


def require_device(device: str) -> None:
    """Refuse a device that is unknown, or that torch does not see."""
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu, cuda or cuda:N, got {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: torch {torch.__version__} finds no GPU; use cpu")


def make_bench(args: argparse.Namespace) -> Bench:
    """The bench of the command line."""
    require_device(args.device)
    return Bench(
        args.backbone,
        dtype=args.dtype,
        device=args.device,
        threads=args.threads,
        seed=args.seed,
        clock=Clock(args.warmup, args.rounds, args.round_s),
        counts=not getattr(args, "no_counts", True),
        compile=getattr(args, "compile", ""),
    )


def swept(args: argparse.Namespace, axis: str, usual: list[int]) -> list[int]:
    """The values of a condition."""
    if args.sweep == axis:
        return SWEEPS[axis]
    given = getattr(args, axis)
    return usual if given is None else given


def schedules(args: argparse.Namespace, name: str, visual: nn.Module) -> list[Schedule]:
    """The schedules that a trainer is measured with."""
    recommended = recommended_schedule(visual)
    if getattr(args, "sweep", None) == "keep":
        block, patches = recommended.at[:1], tower_size(visual)[1]
        return [Schedule(block, (max(1, int(share * patches)),)) for share in KEPT]
    texts = args.prune or (["recommended"] if name == "Spotlighter" else ["none"])
    return [
        recommended if text == "recommended" else parse_schedule(text)
        for text in texts
        if text != "none"
    ]


def models(args: argparse.Namespace) -> Iterator[list[Row]]:
    """Training steps, or evaluated batches."""
    bench, is_training = make_bench(args), args.command == "train"
    for name in args.trainers:
        pruning = [] if is_training else schedules(args, name, bench.clip.visual)
        batches = swept(args, "batch", PUBLISHED_BATCHES[name] if is_training else EVAL_BATCHES)
        for classes, batch in product(swept(args, "classes", args.classes), batches):
            REPORT.start(f"{name}, {classes} classes, batch {batch}")
            if is_training:
                yield bench.train(name, classes, batch, args.forms)
            else:
                yield bench.evaluate(name, classes, batch, pruning, args.forms)


def courses(args: argparse.Namespace) -> Iterator[list[Row]]:
    """Whole trainings."""
    bench, course = make_bench(args), Course(args.shots, args.epochs, args.views)
    for name in args.trainers:
        for classes, batch in product(args.classes, args.batch or PUBLISHED_BATCHES[name]):
            REPORT.start(f"a training of {name}, {classes} classes, batch {batch}")
            yield time_course(bench, name, classes, batch, course)


def second(args: argparse.Namespace) -> Iterator[list[Row]]:
    """Evaluations from pictures and from a store."""
    bench = make_bench(args)
    for name, classes in product(args.trainers, args.classes):
        with tempfile.TemporaryDirectory() as folder:
            found = source(args, folder, bench.clip.visual.input_resolution, classes)
            REPORT.start(f"an evaluation of {name}, {classes} classes")
            yield time_second(bench, found, name, Path(folder))


def tower(args: argparse.Namespace) -> Iterator[list[Row]]:
    """The image tower."""
    bench = make_bench(args)
    for batch in args.batch:
        REPORT.start(f"the image tower, batch {batch}")
        yield time_tower(bench, batch)


def source(args: argparse.Namespace, folder: str, size: int, classes: int = CLASSES) -> Source:
    """The pictures of the command line; without --dataset they are written."""
    if not args.dataset:
        write_pictures(Path(folder), args.images, classes)
    root = args.root if args.dataset else Path(folder)
    return Source(root, args.dataset, size, args.batch, args.threads)


def loader(args: argparse.Namespace) -> Iterator[list[Row]]:
    """Passes of the training loader; all in turns."""
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = source(args, folder, Source.size)
        REPORT.start("the loader")
        yield time_loader(found, args.workers, Clock(args.warmup, args.rounds, args.round_s))


def end_to_end(args: argparse.Namespace) -> Iterator[list[Row]]:
    """Files to logits."""
    bench = make_bench(args)
    visual = bench.clip.visual
    with tempfile.TemporaryDirectory() as folder:
        found = source(args, folder, visual.input_resolution)
        pruning = schedules(args, "Spotlighter", visual)
        for workers in args.workers:
            REPORT.start(f"{workers} workers")
            yield time_end_to_end(bench, found, workers, pruning)


def quick(threads: int, device: str) -> tuple[list[Row], dict[str, float]]:
    """All rows, and the ratios by name, of a small ViT, within two minutes on two cores.

    Training and CoOp's evaluation: time of the published form over ours. Evaluation of Spotlighter:
    time of zero-shot CLIP with text features at hand over ours, exact and pruned as recommended.
    A comparison of four trainers: without what they share over with it. `start_s` is no ratio.
    """
    REPORT.start("building a small CLIP")
    bench = Bench(QUICK, threads=threads, device=device, clock=CLOCK, counts=False)
    rows, ratios, errors, speedups = [], {}, [], {}
    for name in TRAINED:
        REPORT.start(f"training {name}")
        forms = FORMS["train"] if name == "CoOp" else ("published", "ours")
        rows += bench.train(name, SOME, PUBLISHED_BATCHES[name][0], forms)
        speedups[name] = {row.form: row.speedup for row in rows if row.trainer == name}
        ratios[f"{name.lower()}_train_{SOME}"] = speedups[name]["ours"]
    for name in ONLY_CHECKED:
        REPORT.start(f"checking {name}")
        errors.append(bench.pair(name, SOME)[1])
    REPORT.start("evaluating Spotlighter")
    schedules, forms = [recommended_schedule(bench.clip.visual)], ("zero-shot", "ours")
    rows += bench.evaluate("Spotlighter", SOME, BATCH, schedules, forms)
    ratios["eval_exact"], ratios["eval_pruned"] = (row.against_zero_shot for row in rows[-2:])
    REPORT.start("evaluating CoOp")
    rows += bench.evaluate("CoOp", MANY, BATCH, (), ("published", "ours"))
    ratios[f"coop_eval_{MANY}"] = rows[-1].speedup
    errors += [row.max_error for row in rows if row.max_error is not None]
    ratios["coop_train_stored"] = speedups["CoOp"][STORED]
    rows += whole_processes(threads, device)
    ratios["compare_stored"], ratios["start_s"] = rows[-2].speedup, rows[-1].median_s
    ratios = {key: round(value, 3) for key, value in ratios.items()}
    return rows, ratios | {"max_error": float(f"{max(errors):.2e}")}


def whole_processes(threads: int, device: str) -> list[Row]:
    """Rows of whole processes on the tiny CLIP."""
    with tempfile.TemporaryDirectory() as folder:
        root, output = Path(folder, "pictures"), Path(folder)
        launches.write_class_folders(root)
        REPORT.start("a comparison of four trainers")
        rows = launches.compare(root, output, threads, device)
        REPORT.start("the start of a run")
        return [*rows, launches.start(root, output, threads, device)]
