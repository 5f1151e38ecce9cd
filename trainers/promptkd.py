"""PromptKD: an image tower with prompts learns a teacher's predictions, without labels.

Source: PromptKD (Li et al., CVPR 2024), https://arxiv.org/abs/2403.02781
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from yacs.config import CfgNode

from datasets.base import template
from models.classifier import CLIPClassifier, Images, Target, ZeroShotCLIP
from models.clip.blocks import at_least_float32, freeze
from models.clip.image_tower import VisualTokens, require_blocks, require_vit
from models.clip.prune import Pruner
from models.prompts import random_prompts
from runs.backbone import load_backbone
from runs.checkpoint import find_checkpoint, load_into, read_checkpoint
from runs.config import read_run_config
from runs.identity import digest, teacher_folder
from trainers.base import CLIPTrainer, register, trainer_named
from trainers.promptsrc import PromptSRC, PromptSRCSettings
from trainers.published import to_our_names
from trainers.settings import BuildContext, Settings, read_settings
from trainers.templates import sentences

logger = logging.getLogger(__name__)

MODALS = ("base2novel", "cross")
CONTEXT = 77  # tokens of CLIP


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
    UNUSED: ClassVar[tuple[str, ...]] = (
        "N_CTX_TEXT", "PROMPT_DEPTH_TEXT", "PROJECT_LAYER", "CE_WEIGHT",
    )
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = (
        *UNUSED, "CTX_INIT", "KD_WEIGHT", "TEMPERATURE", "TEACHER_NAME", "TEACHER_DIR",
        "TRANSDUCTIVE",
    )

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        found = super().problems() + self.at_least(1, "N_CTX_VISION")
        found += self.at_least(0, "PROMPT_DEPTH_VISION", "KD_WEIGHT")
        if self.TEMPERATURE <= 0:
            found.append(f"TEMPERATURE must be above 0, got {self.TEMPERATURE}")
        return found


class Projector(nn.Module):
    """From the student's joint space to the teacher's; published as 1x1 convolutions."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width_in, width_out)
        self.norm = nn.BatchNorm1d(width_out)
        self.outer = nn.Linear(width_out, width_out)

    def forward(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, "B Dt"]:
        """Map image features; training uses and updates the batch's statistics."""
        return self.outer(self.norm(self.inner(at_least_float32(cls))).relu())

    def patchwise(self, patches: Float[Tensor, "B N D"]) -> Float[Tensor, "B N Dt"]:
        """Map patches by the same weights and the running statistics, which stay as they are."""
        x, norm = self.inner(at_least_float32(patches)), self.norm
        x = F.batch_norm(
            x.flatten(0, 1), norm.running_mean, norm.running_var, norm.weight, norm.bias
        )
        return self.outer(x.relu()).unflatten(0, patches.shape[:2])


class PromptKDModel(CLIPClassifier):
    """The student's image tower, through a projector, against the teacher's text; no labels."""

    learns_images = True
    criterion_name = "kd"

    def __init__(
        self, clip: nn.Module, vision: nn.ParameterList, projector: Projector,
        teacher: CLIPClassifier, *, rows: Int[Tensor, " C"] | None, weight: float,
        temperature: float,
    ) -> None:
        """Join the student `clip` and its teacher, which has a `name`.

        `vision` has one (M, Wv) for each of the blocks 0, 1, ...; `rows` are the positions of the
        evaluated classes among the teacher's, None for all. A CoCoOp teacher is a ValueError.
        """
        super().__init__(clip)
        require_blocks(self.visual, len(vision), "PROMPTKD.PROMPT_DEPTH_VISION")
        if teacher.text_depends_on_image:
            raise ValueError(
                "a CoCoOp teacher makes text features for each image, and a PromptKD student needs "
                "fixed ones; choose a teacher of another trainer (TRAINER.PROMPTKD.TEACHER_DIR)"
            )
        self.teacher, self.text = freeze(teacher), teacher.text
        self._teacher_text: Tensor | None = None
        self.rows = rows
        self.weight, self.temperature = weight, temperature
        self.learn(nn.ModuleDict({"vision": vision, "projector": projector}))

    def identity(self) -> dict[str, str]:
        """The projector fits one teacher's joint space."""
        return {"teacher": self.teacher.name}

    def image_prompts(self) -> list[Float[Tensor, "M Wv"]]:
        """The learned ones."""
        return list(self.learned.vision)

    def encode_tower(
        self, image: Tensor, patch_path: str | None, pruner: Pruner | None
    ) -> VisualTokens:
        """The student's tower, then the projector."""
        tokens, projector = super().encode_tower(image, patch_path, pruner), self.learned.projector
        patches = None if tokens.patches is None else projector.patchwise(tokens.patches)
        return tokens._replace(cls=projector(tokens.cls), patches=patches)

    def encode_text(self, cls: Float[Tensor, "B D"] | None = None) -> Float[Tensor, "C D"]:
        """The teacher's text features, computed once."""
        if self._teacher_text is None:
            with torch.no_grad():
                self._teacher_text = self.teacher.encode_text(cls)
        return self._teacher_text

    @torch.no_grad()
    def target(self, image: Images, label: Int[Tensor, " B"]) -> Target:
        """The teacher's prediction, and its choice in place of the label."""
        cls = self.teacher.encode_image(image).cls
        logits = self.teacher.classify(cls, self.encode_text())
        return Target(logits.argmax(-1), logits)

    def criterion(self, logits: Float[Tensor, "B C"], target: Target) -> Float[Tensor, ""]:
        """T^2 KL(teacher || student) at temperature T, mean over images and classes."""
        t = self.temperature
        assert target.logits is not None  # see `target`
        student, teacher = (logits / t).log_softmax(-1), (target.logits / t).log_softmax(-1)
        divergence = F.kl_div(student, teacher, reduction="sum", log_target=True)
        return self.weight * t**2 * divergence / logits.numel()

    def train(self, mode: bool = True) -> PromptKDModel:
        """Set the mode of the learned part; the teacher always evaluates."""
        super().train(mode)
        self.teacher.train(False)
        return self


@register
class PromptKD(CLIPTrainer):
    """Prompt distillation.

    Differs from the published code in: test pictures choose no epoch, and training pictures of new
    classes are used only where TRANSDUCTIVE says so. As published, base-to-new training knows the
    names of all classes.
    """

    node = "PROMPTKD"
    settings_class = PromptKDSettings
    takes_head = True
    new_classes = "the teacher's text features"
    checkpoint_name = "VLPromptLearner"

    @classmethod
    def extend_cfg(cls, cfg: CfgNode) -> None:
        """Add this trainer's keys to a config, and the published TRAINER.MODAL."""
        super().extend_cfg(cfg)
        cfg.TRAINER.MODAL = MODALS[0]

    @classmethod
    def model_classes(cls, run: BuildContext) -> list[str]:
        """TRAINER.MODAL base2novel: all classes of the data set, base and new; cross: the run's."""
        modal, names = run.cfg.TRAINER.MODAL, list(run.dataset.classnames)
        if modal not in MODALS:
            raise ValueError(f"TRAINER.MODAL must be one of {', '.join(MODALS)}, got {modal!r}")
        return names if modal == "cross" else list(getattr(run.dataset, "all_class_names", names))

    @classmethod
    def reports_halves(cls, cfg: CfgNode) -> bool:
        """With all pictures of all classes and MODAL base2novel, as the published command."""
        data = cfg.DATASET
        every = data.SUBSAMPLE_CLASSES == "all" and data.NUM_SHOTS < 1
        return bool(every and cfg.TRAINER.MODAL == "base2novel")

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: PromptKDSettings, run: BuildContext
    ) -> PromptKDModel:
        """The student and its teacher."""
        width = require_vit(clip.visual).conv1.out_channels
        teacher = build_teacher(class_names, settings, run)
        projector = Projector(clip.text_projection.shape[1], teacher.text.text_projection.shape[1])
        evaluated = list(run.dataset.classnames)
        position = {name: i for i, name in enumerate(class_names)}
        rows = torch.tensor([position[name] for name in evaluated])
        return PromptKDModel(
            clip, random_prompts(settings.PROMPT_DEPTH_VISION, settings.N_CTX_VISION, width),
            projector, teacher, rows=None if evaluated == class_names else rows,
            weight=settings.KD_WEIGHT, temperature=settings.TEMPERATURE,
        )


def build_teacher(
    class_names: list[str], settings: PromptKDSettings, run: BuildContext
) -> CLIPClassifier:
    """The teacher that TRAINER.PROMPTKD.TEACHER_DIR names, with its `name`.

    "": zero-shot CLIP; the folder of a run: its model; any other: a published PromptSRC teacher.
    `{dataset}` and `{seed}` in the folder stand for DATASET.NAME and SEED.
    """
    folder = teacher_folder(run.cfg)
    if not settings.TEACHER_DIR:
        clip = load_backbone(run.cfg.MODEL, run.cfg.INPUT, settings.TEACHER_NAME)
        own = sentences((template(run.cfg.DATASET.NAME),), class_names)
        teacher: CLIPClassifier = ZeroShotCLIP(clip, own)
        teacher.name = f"zero-shot {settings.TEACHER_NAME}"
    elif (folder / "config.yaml").is_file():
        teacher = teacher_of_run(folder, class_names, run)
    else:
        teacher = published_teacher(folder, class_names, settings, run)
    logger.info("Teacher: %s", teacher.name)
    return teacher


def teacher_of_run(folder: Path, class_names: list[str], run: BuildContext) -> CLIPClassifier:
    """The tuned model of an earlier run."""
    cfg = read_run_config(folder)
    trainer: type[CLIPTrainer] = trainer_named(cfg.TRAINER.NAME)
    settings = read_settings(cfg, trainer.node, trainer.settings_class)
    cfg.MODEL.TRUST_WEIGHTS = run.cfg.MODEL.TRUST_WEIGHTS
    clip = load_backbone(cfg.MODEL, run.cfg.INPUT)
    teacher = trainer.build(clip, class_names, settings, run._replace(cfg=cfg))
    teacher.name = f"{cfg.TRAINER.NAME} on {cfg.MODEL.BACKBONE.NAME}"
    if teacher.learned is None:
        return teacher
    path = find_checkpoint(folder, trainer.checkpoint_name)
    return with_weights(teacher, read_checkpoint(path), path)


def published_teacher(
    folder: Path, class_names: list[str], settings: PromptKDSettings, run: BuildContext
) -> CLIPClassifier:
    """A PromptSRC teacher in the layout that PromptKD's authors published."""
    try:
        path = find_checkpoint(folder, PromptSRC.checkpoint_name)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no teacher: {error}; name the output folder of a run, or a published teacher's "
            "folder, in TRAINER.PROMPTKD.TEACHER_DIR, or leave it empty for zero-shot CLIP"
        ) from error
    clip = load_backbone(run.cfg.MODEL, run.cfg.INPUT, settings.TEACHER_NAME)
    saved = read_checkpoint(path)
    shape = shape_of(saved["state_dict"], settings.CTX_INIT)
    teacher = PromptSRC.build(clip, class_names, shape, run)
    teacher.name = f"PromptSRC on {settings.TEACHER_NAME}"
    saved["state_dict"] = to_our_names(saved["state_dict"], teacher, path)
    return with_weights(teacher, saved, path)


def shape_of(state: dict[str, Any], ctx_init: str) -> PromptSRCSettings:
    """Lengths and depths of the prompts in a published PromptSRC checkpoint."""

    def depth(tower: str) -> int:
        deeper = [key for key in state if key.startswith(tower) and key.endswith(".VPT_shallow")]
        return 1 + len(deeper)

    vision = state.get("image_encoder.VPT")
    return PromptSRCSettings(
        N_CTX_TEXT=length_of(state.get("prompt_learner.ctx")), N_CTX_VISION=length_of(vision),
        PROMPT_DEPTH_TEXT=depth("text_encoder"),
        PROMPT_DEPTH_VISION=0 if vision is None else depth("image_encoder"), CTX_INIT=ctx_init,
    )


def length_of(prompt: Tensor | None) -> int:
    """The number of vectors in a prompt; the published default where there is none."""
    if prompt is None:
        return PromptSRCSettings.N_CTX_TEXT
    if prompt.dim() != 2 or len(prompt) > CONTEXT:
        raise ValueError(
            f"the teacher's prompt has the shape {tuple(prompt.shape)}, and a prompt is at most "
            f"{CONTEXT} vectors; take another TRAINER.PROMPTKD.TEACHER_DIR"
        )
    return len(prompt)


def with_weights(teacher: CLIPClassifier, saved: dict[str, Any], path: Path) -> CLIPClassifier:
    """Load a teacher's weights; their digest becomes part of its name."""
    load_into(teacher.learned, saved, path)
    teacher.name += f", {digest(teacher.learned)}"
    return teacher
