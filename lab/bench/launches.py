"""Whole processes: a comparison of trainers, with and without what they share; a run's start."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from lab.bench.backbones import PROJECT, made_up_names
from lab.bench.clock import REPORT, Timing
from lab.bench.rows import Row, timed_rows

TRAINERS = ("ZeroshotCLIP", "CoOp", "KgCoOp", "Spotlighter")  # which take features from a store
CLASSES, PER_CLASS, SIZE = 10, 50, 64  # pictures of a class, pixels of a side
SHOTS, EPOCHS, STARTS = 8, 5, 3
BACKBONE, CONFIG = "tiny-emoji", "tiny_emoji"
# train.py up to its first step
FIRST_STEP = """
import os, runpy, sys, time
from trainers.base import CLIPTrainer

def stop(*_):
    print(time.process_time(), flush=True)
    os._exit(0)

CLIPTrainer.forward_backward = stop
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


def write_class_folders(root: Path) -> None:
    """Write pictures of noise, a folder for each class."""
    rng = np.random.default_rng(0)
    for name in made_up_names(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(PER_CLASS):
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")


def launch(words: Sequence[str], threads: int, device: str) -> tuple[str, float]:
    """What a command of Python prints, and its seconds; RuntimeError if it fails."""
    own = {"OMP_NUM_THREADS": str(threads)}
    own |= {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    options = {"cwd": PROJECT, "env": os.environ | own, "capture_output": True, "text": True}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *words], check=False, **options)
    if done.returncode:
        tail = (done.stderr or done.stdout)[-2000:]
        raise RuntimeError(f"python {' '.join(words)} ended with {done.returncode}: {tail}")
    return done.stdout, time.perf_counter() - start


def compare(root: Path, folder: Path, threads: int, device: str) -> list[Row]:
    """Seconds of the wall of a sweep of four trainers, one job at a time, once each."""
    stored = ("FEATURES.KEEP", "disk", "FEATURES.DIR", str(folder / "store"))
    forms = {"plain": (["--isolate"], ()), "stored": ([], stored)}
    sweep = ["tools/sweep.py", "--serial", "--protocols", "fewshot", "--datasets", "folder"]
    sweep += ["--root", str(root), "--shots", str(SHOTS), "--threads", str(threads), "--trainers"]
    sweep += [f"{trainer}:{CONFIG}" for trainer in TRAINERS]
    seconds = {}
    for form, (flags, keys) in forms.items():
        REPORT.update(form)
        opts = ["--opts", "OPTIM.MAX_EPOCH", str(EPOCHS), *keys]
        words = [*sweep, *flags, "--output", str(folder / form), *opts]
        seconds[form] = Timing((launch(words, threads, device)[1],), 0)
    note = f"{', '.join(TRAINERS)}; {CLASSES * PER_CLASS} pictures, {EPOCHS} epochs"
    row = launched("compare", "", threads, device, note)
    found = timed_rows({form: replace(row, form=form) for form in forms}, seconds)
    plain = found["plain"].median_s
    return [replace(row, speedup=plain / row.median_s) for row in found.values()]


def start(root: Path, folder: Path, threads: int, device: str) -> Row:
    """Processor seconds of train.py from the start of its process to its first step."""
    words = ["-c", FIRST_STEP, "--trainer", "CoOp", "--root", str(root), "--seed", "1"]
    words += ["--config-file", f"configs/trainers/CoOp/{CONFIG}.yaml"]
    words += ["--dataset-config-file", "configs/datasets/folder.yaml", "--output-dir"]
    seconds = []
    for i in range(STARTS):
        REPORT.update(f"round {i + 1} of {STARTS}")
        said, _ = launch([*words, str(folder / f"start{i}")], threads, device)
        seconds.append(float(said.splitlines()[-1]))
    row = launched("start", "CoOp", threads, device, "processor seconds")
    return timed_rows({"ours": row}, {"ours": Timing(tuple(seconds), 0)})["ours"]


def launched(command: str, trainer: str, threads: int, device: str, note: str) -> Row:
    """The conditions of a row of whole processes."""
    own = {"backbone": BACKBONE, "image_size": SIZE, "classes": CLASSES, "note": note}
    own |= {"threads": threads, "device": device, "dtype": "float32"}
    return Row(command=command, trainer=trainer, form="ours", **own)
