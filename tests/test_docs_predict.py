"""The examples of docs/predict.md run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.toy import NAMES

PROJECT = Path(__file__).parents[1]


def test_the_examples_for_programs_run(trained, toy_root, tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "my_run").symlink_to(trained("Spotlighter"))
    for name, label in (("a", 0), ("b", 1)):
        (tmp_path / f"{name}.png").symlink_to(toy_root / "toy" / "images" / f"test_{label}_0.png")
    page = (PROJECT / "docs" / "predict.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.S))
    path = os.pathsep.join([str(PROJECT), str(PROJECT / "engine" / "src")])
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert found.stderr == ""
    first, second, third = found.stdout.splitlines()
    for line in (first, second):
        assert re.fullmatch(rf"({'|'.join(NAMES)}) [01]\.\d\d \[(\d+, ){{4}}\d+\]", line)
    assert re.fullmatch(r"\['\w+', '\w+'\] the best patch: row \d, column \d of 8", third)
