"""Moved: python lab/pretrain_tiny_clip.py. This pointer stays for one release."""

from pathlib import Path
from runpy import run_path

run_path(str(Path(__file__).parents[1] / "lab/pretrain_tiny_clip.py"), run_name="__main__")
