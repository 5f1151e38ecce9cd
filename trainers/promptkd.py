"""PromptKD: an image tower with prompts learns the predictions of a teacher, without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import nn
from yacs.config import CfgNode

from models.distilled import DistilledCLIP, Projector, StudentPrompts
from models.visual_encoder import require_vit
from trainers.base import CLIPTrainer
from trainers.settings import Run, Settings
from trainers.teacher import build_teacher

MODALS = ("base2novel", "cross")


@dataclass(frozen=True)
class PromptKDSettings(Settings):
    """Keys of TRAINER.PROMPTKD.

    PROJECT_LAYER and CE_WEIGHT are not used, as in the published code; nor are N_CTX_TEXT and
    PROMPT_DEPTH_TEXT: the student has no text tower, and a teacher's shape is its checkpoint's.
    """

    N_CTX_VISION: int = 4
    N_CTX_TEXT: int = 4
    CTX_INIT: str = "a photo of a"
    PROMPT_DEPTH_VISION: int = 9
    PROMPT_DEPTH_TEXT: int = 9
    PROJECT_LAYER: int = 2
    CE_WEIGHT: float = 0.0
    KD_WEIGHT: float = 1.0
    TEMPERATURE: float = 1.0
    TEACHER_NAME: str = "ViT-L/14"
    TEACHER_DIR: str = "teacher_model/{dataset}"  # "" for zero-shot CLIP; see `build_teacher`
    TRANSDUCTIVE: bool = False  # train on unlabelled pictures of new classes, too
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = (
        *("N_CTX_TEXT", "CTX_INIT", "PROMPT_DEPTH_TEXT", "PROJECT_LAYER", "CE_WEIGHT"),
        *("KD_WEIGHT", "TEMPERATURE", "TEACHER_NAME", "TEACHER_DIR", "TRANSDUCTIVE"),
    )
    UNUSED: ClassVar[tuple[str, ...]] = (
        *("N_CTX_TEXT", "PROMPT_DEPTH_TEXT", "PROJECT_LAYER", "CE_WEIGHT"),
    )

    def faults(self) -> list[str]:
        """What is wrong, a sentence each."""
        found = super().faults() + self.below(1, "N_CTX_VISION")
        found += self.below(0, "PROMPT_DEPTH_VISION", "KD_WEIGHT")
        if self.TEMPERATURE <= 0:
            found.append(f"TEMPERATURE must be above 0, got {self.TEMPERATURE}")
        return found


@TRAINER_REGISTRY.register()
class PromptKD(CLIPTrainer):
    """Prompt distillation (Li et al., CVPR 2024, https://arxiv.org/abs/2403.02781).

    Differs from the published code in: test pictures choose no epoch, and training pictures of new
    classes are used only where TRANSDUCTIVE says so. As published, base-to-new training knows the
    names of all classes.
    """

    node = "PROMPTKD"
    settings_class = PromptKDSettings
    checkpoint_name = "VLPromptLearner"

    @classmethod
    def extend_cfg(cls, cfg: CfgNode) -> None:
        """Add this trainer's keys to a config, and the published TRAINER.MODAL."""
        super().extend_cfg(cfg)
        cfg.TRAINER.MODAL = MODALS[0]

    @classmethod
    def model_classes(cls, run: Run) -> list[str]:
        """TRAINER.MODAL base2novel: all classes of the data set, base and new; cross: the run's.

        Raises:
            ValueError: MODAL is neither.
        """
        if run.cfg.TRAINER.MODAL not in MODALS:
            raise ValueError(
                f"TRAINER.MODAL must be one of {', '.join(MODALS)}, got {run.cfg.TRAINER.MODAL!r}"
            )
        names = list(run.dataset.classnames)
        if run.cfg.TRAINER.MODAL == "cross":
            return names
        return list(getattr(run.dataset, "all_class_names", names))

    @classmethod
    def reports_halves(cls, cfg: CfgNode) -> bool:
        """As the published base-to-new command: all pictures of all classes, and MODAL base2novel.

        It trains on pictures of new classes, without labels.
        """
        data = cfg.DATASET
        every = data.SUBSAMPLE_CLASSES == "all" and data.NUM_SHOTS < 1
        return bool(every and cfg.TRAINER.MODAL == "base2novel")

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: PromptKDSettings, run: Run
    ) -> DistilledCLIP:
        """The student beside its teacher."""
        width = require_vit(clip.visual).conv1.out_channels
        teacher = build_teacher(class_names, settings, run)
        projector = Projector(clip.text_projection.shape[1], teacher.text.text_projection.shape[1])
        prompts = StudentPrompts(
            settings.PROMPT_DEPTH_VISION, (settings.N_CTX_VISION, width), projector
        )
        evaluated = list(run.dataset.classnames)
        position = {name: i for i, name in enumerate(class_names)}
        rows = torch.tensor([position[name] for name in evaluated])
        return DistilledCLIP(
            clip,
            prompts,
            teacher,
            rows=None if evaluated == class_names else rows,
            weight=settings.KD_WEIGHT,
            temperature=settings.TEMPERATURE,
        )
