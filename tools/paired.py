"""Moved: python tools/compare_trainers.py. This pointer stays for one release."""

from pathlib import Path
from runpy import run_path

run_path(str(Path(__file__).parents[1] / "tools/compare_trainers.py"), run_name="__main__")
