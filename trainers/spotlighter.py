"""Spotlighter: keep the tokens that matter, let prototypes speak beside the prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from models.classifier import CLIPClassifier
from models.clip.prune import LinearDiscriminant, most_attended
from models.clip.tokenizer import normalise_name
from models.spotlighter.head import SpotlighterHead
from models.spotlighter.model import SpotlightedCLIP
from models.spotlighter.options import HeadOptions
from runs.data import training_pictures
from trainers.base import CLIPTrainer
from trainers.cocoop import CoCoOp
from trainers.coop import CoOp
from trainers.maple import MaPLe
from trainers.promptkd import PromptKD
from trainers.promptsrc import PromptSRC
from trainers.settings import Run, Settings, read_settings
from trainers.templates import DEFAULT

BASES = {trainer.__name__: trainer for trainer in (CoOp, CoCoOp, MaPLe, PromptSRC, PromptKD)}


@dataclass(frozen=True)
class SpotlighterSettings(Settings):
    """Keys of TRAINER.SPOTLIGHTER; the base tuner's own keys stay under its own node."""

    PREC: str = "fp32"
    BASE: str = "CoOp"
    TOPK: int = 5
    LEVEL1: int = 3
    PROTOTYPES: int = 5
    MOMENTUM: float = 1.0
    ALPHA: float = 0.2
    BALANCE: float = 50.0
    DISTILL: float = 20.0
    CANDIDATES: int = 5
    TAU_PROTO: float = 0.1
    TAU_ATTN: float = 0.1
    TAU_INHERIT: float = 0.3
    HEAD: str = "lite"
    SHARPNESS: float = 30.0  # logits of the levels per unit of similarity
    LEVELS: tuple[float, ...] = (1.0, 1 / 3, 1 / 3, 1 / 3)  # starts: global, 1, 2, both
    SELECT: str = "both"
    SCORE: str = "attention"
    TOKENS: str = "value"
    NEW: str = "inherit"
    LR_MULT: float = 0.1  # learning rate of the head's scalars over that of the context
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = (
        *("MOMENTUM", "BALANCE", "DISTILL", "LEVELS", "LR_MULT"),
    )

    def head_options(self) -> HeadOptions:
        """The same, as the head names them."""
        return HeadOptions(
            num_keep=self.TOPK,
            level1=self.LEVEL1,
            num_prototypes=self.PROTOTYPES,
            momentum=self.MOMENTUM,
            alpha=self.ALPHA,
            num_candidates=self.CANDIDATES,
            tau_proto=self.TAU_PROTO,
            tau_attn=self.TAU_ATTN,
            tau_inherit=self.TAU_INHERIT,
            head=self.HEAD,
            sharpness=self.SHARPNESS,
            levels=tuple(self.LEVELS),
            select=self.SELECT,
            score=self.SCORE,
            tokens=self.TOKENS,
            new=self.NEW,
        )

    def faults(self) -> list[str]:
        """What is wrong, a sentence each."""
        found = super().faults() + self.head_options().faults()
        if self.BASE not in BASES:
            found.append(f"BASE must be one of {', '.join(BASES)}, got {self.BASE!r}")
        return found + self.below(0, "BALANCE", "DISTILL", "LR_MULT")


@TRAINER_REGISTRY.register()
class Spotlighter(CLIPTrainer):
    """Representative mining on a base prompt tuner (arXiv 2509.00905; docs/method.md)."""

    node = "SPOTLIGHTER"
    settings_class = SpotlighterSettings

    def check_cfg(self, cfg: CfgNode) -> None:
        """Check this trainer's keys and its base's."""
        super().check_cfg(cfg)
        base = BASES[self.settings.BASE]
        self.base_settings = read_settings(cfg, base.node, base.settings_class)
        if getattr(self.base_settings, "CSC", False):
            raise ValueError(
                f"TRAINER.{base.node}.CSC True gives each training class a context of its own, "
                "which no new class can have; Spotlighter needs a shared context (CSC False)"
            )

    @property
    def tuner(self) -> tuple[type[CLIPTrainer], Any]:
        """The base, and its settings."""
        return BASES[self.settings.BASE], self.base_settings

    def build_clip(self, tuner: CLIPClassifier) -> SpotlightedCLIP:
        """The base tuner with a head on it."""
        settings, run = self.settings, Run(self.cfg, self.dm.dataset)
        class_names = self.tuner[0].model_classes(run)
        names = [normalise_name(name) for name in class_names]
        anchors = tuner.text.encode([DEFAULT.format(name) for name in names])
        head = SpotlighterHead(class_names, anchors, settings.head_options())
        return SpotlightedCLIP(tuner, head, balance=settings.BALANCE, distill=settings.DISTILL)

    def own_identity(self) -> dict[str, Any]:
        """The base must be the same, too."""
        return super().own_identity() | {"base": self.settings.BASE}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The scalars have a rate of their own, and do not decay: 0 is not where they belong."""
        head = self.model.head
        scalars = list(head.parameters(recurse=False))
        chosen = {id(p) for p in scalars}
        rest = [p for p in self.model.learned.parameters() if id(p) not in chosen]
        rate = self.cfg.OPTIM.LR * self.settings.LR_MULT
        return [{"params": rest}, {"params": scalars, "lr": rate, "weight_decay": 0.0}]

    def before_train(self) -> None:
        """Resume, or fill the bank from the training images."""
        super().before_train()
        if not self.model.head.memory.calibrated:
            self.calibrate()

    @torch.no_grad()
    def calibrate(self) -> None:
        """Two passes over the training images as at test: no augmentation, nothing learned.

        First which way the patches lie that the last block attends to, then what is kept.
        """
        self.set_model_mode("eval")
        model, memory = self.model, self.model.head.memory
        statistics = LinearDiscriminant()
        for image, _ in training_pictures(self):
            tokens = model.base.encode_image(image, model.patch_path)
            statistics.add(model.head.patches(tokens), most_attended(tokens.cls_attention))
        memory.set_direction(statistics)
        seen = []
        for image, label in training_pictures(self):
            label = model.base.target(image, label).label
            seen.append((*model.forward_all(image).memory_inputs(), label))
        memory.calibrate(*(torch.cat(column) for column in zip(*seen, strict=True)))

    def after_epoch(self) -> None:
        """Order the slots by evidence before anything is saved."""
        self.model.head.memory.sort_by_mass()
        super().after_epoch()

    def finish(self) -> None:
        """Fill the bank anew where image features have moved since it was filled first."""
        super().finish()
        if self.model.base.learns_images:
            self.calibrate()
