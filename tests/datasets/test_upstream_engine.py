"""The data sets need nothing of the engine but what upstream has."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.datasets.config import build, flat
from tests.datasets.trees import TREES, class_folders, plant

PROJECT = Path(__file__).parents[2]
UPSTREAM = os.environ.get("UPSTREAM_DASSL", str(PROJECT / "tests" / "upstream_engine"))
READ = """
import json, sys, dassl
from tests.datasets.test_upstream_engine import read
assert dassl.__file__.startswith(sys.argv[1]), dassl.__file__
print(json.dumps([read(*pair) for pair in json.loads(sys.argv[2])]))
"""


def read(name, root):
    found = build(name, root, shots=2, subset="new")
    items = [[list(entry) for entry in flat(part)] for part in (found.train_x, found.test)]
    return [items, found.classnames, found.num_classes, found.digest]


def test_data_sets_are_read_alike_on_upstream(tmp_path):
    pairs = []
    for name in TREES:
        plant(name, tmp_path / name)
        pairs.append([name, str(tmp_path / name)])
    class_folders(tmp_path / "mine", ["bee", "cat", "dog"])
    pairs.append(["Folder", str(tmp_path / "mine")])
    done = subprocess.run(
        [sys.executable, "-c", READ, UPSTREAM, json.dumps(pairs)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([UPSTREAM, str(PROJECT)])},
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [read(*pair) for pair in pairs]
