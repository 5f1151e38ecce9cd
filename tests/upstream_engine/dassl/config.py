"""The default configuration: our engine's, which has upstream's keys and values."""

import runpy
from pathlib import Path

ENGINE = Path(__file__).parents[3] / "engine" / "src" / "dassl"
_ours = runpy.run_path(str(ENGINE / "config.py"))
get_cfg_default, clean_cfg = _ours["get_cfg_default"], _ours["clean_cfg"]
