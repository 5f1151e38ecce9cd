"""Moved: python lab/ablation.py. This pointer stays for one release."""

from pathlib import Path
from runpy import run_path

run_path(str(Path(__file__).parents[1] / "lab/ablation.py"), run_name="__main__")
