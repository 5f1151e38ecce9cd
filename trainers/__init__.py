"""Trainers. Importing this package registers them all with Dassl."""

from __future__ import annotations

from runs.config import extend_cfg
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
