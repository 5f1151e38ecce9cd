"""The default configuration."""

import runpy
from pathlib import Path

ENGINE = Path(__file__).parents[3] / "engine" / "src" / "dassl"
cfg_default = runpy.run_path(str(ENGINE / "config" / "defaults.py"))["DEFAULTS"]


def get_cfg_default():
    return cfg_default.clone()


def clean_cfg(cfg, trainer):
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            cfg.TRAINER.pop(key)
