"""Open a finished run: its config, its data, its learned weights."""

from __future__ import annotations

from pathlib import Path

from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from yacs.config import CfgNode

from trainers.base import CLIPTrainer
from trainers.config import default_config, merge_file


def read_run_config(model_dir: str | Path) -> CfgNode:
    """The config that a run wrote.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    path = Path(model_dir) / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"{model_dir} holds no config.yaml, so it is not the output folder of a run "
            "(--model-dir)"
        )
    cfg = default_config()
    merge_file(cfg, path)
    return cfg


def open_run(model_dir: str | Path, root: str = "") -> CLIPTrainer:
    """A trainer as the run left it, in evaluation mode.

    Args:
        model_dir: the run's output folder.
        root: folder of all data sets, where it has moved since.
    """
    cfg = read_run_config(model_dir)
    if root:
        cfg.DATASET.ROOT = root
    cfg.freeze()
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)  # a backbone of random weights is drawn again
    trainer = build_trainer(cfg)
    trainer.load_model(str(model_dir))
    trainer.set_model_mode("eval")
    return trainer
