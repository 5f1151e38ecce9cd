"""Trainers. Importing this package registers them all with Dassl."""

from __future__ import annotations

from yacs.config import CfgNode

from trainers.cocoop import CoCoOp
from trainers.coop import CoOp
from trainers.ivlp import IVLP
from trainers.maple import MaPLe
from trainers.promptkd import PromptKD
from trainers.promptsrc import PromptSRC
from trainers.spotlighter import Spotlighter
from trainers.text_refiner import TextRefiner
from trainers.vpt import VPT
from trainers.zeroshot import ZeroshotCLIP, ZeroshotCLIP2

TRAINERS = (
    ZeroshotCLIP,
    ZeroshotCLIP2,
    CoOp,
    CoCoOp,
    MaPLe,
    IVLP,
    VPT,
    PromptSRC,
    PromptKD,
    TextRefiner,
    Spotlighter,
)

__all__ = ["TRAINERS", "extend_cfg", *(trainer.__name__ for trainer in TRAINERS)]


def extend_cfg(cfg: CfgNode) -> None:
    """Add what the project's configs use beyond Dassl's own keys."""
    cfg.CONFIG_NAME = ""  # stem of the trainer's yaml; names a run in tables
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all | base | new
    cfg.DATASET.LABEL = ""  # name of the data in results and tables; see docs/datasets.md
    cfg.INPUT.EXIF = "auto"  # auto | upright | stored: are pictures turned as their EXIF data say?
    cfg.DATALOADER.CACHE_MB = 1024  # decoded training pictures that are kept in memory, 0 for none
    cfg.DATALOADER.SKIP_UNREADABLE = False  # go on without missing and broken pictures, count them
    # -1: one an epoch, of which the newest two stay; N: one each N epochs; 0: the last one's
    cfg.TRAIN.CHECKPOINT_FREQ = -1
    cfg.TRAIN.KEEP_CHECKPOINTS = 0  # newest checkpoints that stay beside the best one, 0 for all
    cfg.TRAIN.WANDB = "off"  # off | offline | online: Weights & Biases beside TensorBoard
    cfg.OPTIM.SGD_DAMPNING = 0.0  # Dassl's default, an int, would not let it be 0.5
    cfg.MODEL.BACKBONE.WEIGHTS = ""  # file of the backbone's weights, instead of published ones
    cfg.MODEL.TRUST_WEIGHTS = False  # --trust-weights; no file and no KEY VALUE sets it
    cfg.MODEL.ALLOW_MISMATCH = False  # --allow-mismatch; no file and no KEY VALUE sets it
    cfg.MODEL.COMPILE = ""  # backend of torch.compile for the image tower, as inductor
    cfg.MODEL.TEXT_CHUNK = 0  # prompts encoded at a time in training; 0: all, if memory allows
    # Blocks of the image tower (from 0) that drop patches, and how many go on; see docs/method.md 7
    cfg.MODEL.PRUNE = CfgNode({"AT": (), "KEEP": (), "MIX": 1.0})
    for trainer in TRAINERS:
        trainer.extend_cfg(cfg)
