"""Figures of docs/reliability.md: the page shows what was recorded, and what large inputs cost."""

import json
import os
import shutil
import subprocess
import sys
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.reliability.table import Figures, Table

PROJECT = Path(__file__).parents[2]
MEASURED = """
import re, sys, time
sys.path.insert(0, {project!r})
{imports}

def peak():
    status = open("/proc/self/status").read()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status).group(1)) / 1024

start, before = time.process_time(), peak()
{code}
print("cost", time.process_time() - start, peak(), peak() - before)
"""


def test_the_page_shows_the_recorded_figures(figures, table):
    assert figures.write or table.path.read_text().endswith(figures.text())


def test_figures_are_recorded_and_shown(tmp_path):
    (tmp_path / "figures.csv").write_text("what,figure,test\n")
    for figure in ("63 of 64", "64 of 64"):
        Figures(tmp_path / "figures.csv", write=True).note("kills, survived", figure, "a.py::b")
    page = tmp_path / "page.md"
    kept = Figures(tmp_path / "figures.csv", write=False)
    for fault, seen in (("a picture", "lost"), ("a yaml", "noticed"), ("a picture", "noticed")):
        table = Table(page, kept, write=True)
        table.note("input", fault, seen)
        table.finish()
    faults, figures = page.read_text().split("\n## Figures\n")
    rows = [line for line in faults.splitlines() if line.startswith("| a ")]
    assert rows == ["| a picture | noticed |", "| a yaml | noticed |"], "others' rows stay"
    assert figures.splitlines()[-1] == "| kills, survived | 64 of 64 | `a.py::b` |"
    kept.note("kills, survived", "3 of 64", "a.py::b")  # of another machine
    with pytest.raises(AssertionError, match="lacks a row: flips"):
        kept.note("flips", "1", "a.py::b")


class Cost:
    """What code costs in a process of its own.

    Attributes:
        seconds: of a processor, imports not counted; never compared.
        peak: memory of the process at most, MB.
        more: of it, what the code added to its imports.
    """

    def __init__(self, imports, code):
        script = MEASURED.format(project=str(PROJECT), imports=imports, code=code)
        options = {"capture_output": True, "text": True, "check": False}
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run([sys.executable, "-c", script], env=environment, **options)
        assert done.returncode == 0, done.stderr
        words = done.stdout.splitlines()[-1].split()
        self.seconds, self.peak, self.more = map(float, words[1:])

    def __str__(self):
        return f"{self.seconds:.1f} s, {self.peak:.0f} MB"


def grows_linearly(few, many, times):
    """Whether `times` as much input takes no more than about as many times the memory."""
    return many.more < 1.5 * times * max(few.more, 10)


CONFIG = "".join(f"PART{i}:\n" + "".join(f"  KEY{k}: {k}\n" for k in range(12)) for i in range(20))


def write_results(root, number):
    """So many runs of 10 trainers on 11 data sets: few-shot, and from base to new classes."""
    numbers = np.random.default_rng(0)
    names = [f"class {i}" for i in range(100)]
    pairs = numbers.integers(0, 100, (500, 2)).tolist()
    predictions = "label,predicted\n" + "".join(f"{a},{b}\n" for a, b in pairs)
    kinds = [*(("all", shots) for shots in (1, 2, 4, 8, 16)), ("base", 16), ("new", 16)]
    runs = product(range(1, number), kinds, range(11), range(10))
    for seed, (classes, shots), dataset, trainer in islice(runs, number):
        folder = root / classes / f"{dataset}" / f"{shots}" / f"{trainer}" / f"seed{seed}"
        folder.mkdir(parents=True)
        record = {"trainer": f"Trainer{trainer}", "dataset": f"Data{dataset}", "config": "vit_b16"}
        record |= {"classes": classes, "shots": shots, "seed": seed, "class_names": names}
        record |= {"accuracy": float(numbers.uniform(50, 90)), "epoch": 50, "git": "abc"}
        record |= {"images_per_s": 100.0, "learned_parameters": 512, "date": "2026-01-02"}
        record |= {"settings": {}, "data": "0123", "weights": "4567"}
        (folder / "results.json").write_text(json.dumps(record))
        (folder / "config.yaml").write_text(f"{CONFIG}OUTPUT_DIR: {folder}\nSEED: {seed}\n")
        (folder / "predictions.csv").write_text(predictions)


@pytest.mark.thorough
def test_thousands_of_results(tmp_path, measured):
    found, size = {}, {}
    for number in (1000, 5000):
        root = tmp_path / str(number)
        write_results(root, number)
        for tool in ("collect_results", "report"):
            code = f"assert main([{str(root)!r}]) == 0"
            found[tool, number] = Cost(f"from tools.{tool} import main", code)
        size[number] = (root / "report.html").stat().st_size / 1e6
    assert size[5000] < 10, "MB"
    for tool in ("collect_results", "report"):
        few, many = found[tool, 1000], found[tool, 5000]
        assert grows_linearly(few, many, 5), (str(few), str(many))
        pages = f"; pages of {size[1000]:.1f} and {size[5000]:.1f} MB" if tool == "report" else ""
        measured(f"{tool} of 1,000 and of 5,000 results", f"{few}; {many}{pages}")


def write_pictures(root, number):
    """So many small pictures in 100 classes; links to one picture a class."""
    for label in range(100):
        folder = root / f"class_{label:03d}"
        folder.mkdir(parents=True)
        first = folder / "000000.png"
        Image.new("RGB", (8, 8), (label, 0, 0)).save(first)
        for i in range(1, number // 100):
            (folder / f"{i:06d}.png").hardlink_to(first)


OPEN = "import datasets; from tools.check_data import open_subject"
CHECK = "from tools.check_data import main"


@pytest.mark.thorough
def test_hundred_thousands_of_files(tmp_path, measured):
    found = {}
    for number in (50_000, 200_000):
        root = tmp_path / str(number)
        write_pictures(root, number)
        code = f"from pathlib import Path; open_subject('Folder', Path({str(root)!r}))"
        found["list and split", number] = Cost(OPEN, code)
        code = f"assert main(['folder', '--root', {str(root)!r}, '--quick']) in (0, 1)"
        found["check_data --quick", number] = Cost(CHECK, code)
        shutil.rmtree(root)
    for what in ("list and split", "check_data --quick"):
        few, many = found[what, 50_000], found[what, 200_000]
        assert grows_linearly(few, many, 4), (what, str(few), str(many))
        measured(f"{what}, 50,000 and 200,000 pictures", f"{few}; {many}")


PREDICT = """
names = [f"thing {{i}}" for i in range({number})]
found = SpotlighterPredictor.from_run({folder!r}, names).predict(Image.new("RGB", (64, 64)))
assert found[0].class_name in names
"""


@pytest.mark.thorough
@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "CoOp", "Spotlighter"])
def test_thousands_of_classes(trained, measured, trainer):
    folder = str(trained(trainer))
    imports = "from PIL import Image; from inference.predictor import SpotlighterPredictor"
    few, many = (
        Cost(imports, PREDICT.format(number=number, folder=folder)) for number in (2000, 10_000)
    )
    assert grows_linearly(few, many, 5), (str(few), str(many))
    measured(f"{trainer} (tiny CLIP): 2,000 and 10,000 classes, one picture", f"{few}; {many}")
