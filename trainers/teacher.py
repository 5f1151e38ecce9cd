"""The teacher of PromptKD: a tuned CLIP from a checkpoint, or zero-shot CLIP."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dassl.engine import TRAINER_REGISTRY

from models.classifier import CLIPClassifier, ZeroShotCLIP
from models.tokenizer import normalise_name
from trainers.backbone import load_backbone
from trainers.checkpoint import find_checkpoint, load_into, read_checkpoint
from trainers.identity import digest, teacher_folder
from trainers.promptsrc import PromptSRC, PromptSRCSettings
from trainers.published import to_our_names
from trainers.settings import read_settings
from trainers.templates import template

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer
    from trainers.promptkd import PromptKDSettings
    from trainers.settings import Run

logger = logging.getLogger(__name__)

CONTEXT = 77  # tokens of CLIP


def build_teacher(class_names: list[str], settings: PromptKDSettings, run: Run) -> CLIPClassifier:
    """The teacher that TRAINER.PROMPTKD.TEACHER_DIR names, with `name` and `digest`.

    - "": zero-shot CLIP of TEACHER_NAME.
    - the output folder of a run of this project: that run's trainer, backbone and weights.
    - any other folder: a published PromptSRC teacher on TEACHER_NAME.

    `{dataset}` and `{seed}` in the folder stand for DATASET.NAME and SEED.

    Raises:
        FileNotFoundError: the folder holds no checkpoint.
        ValueError: the checkpoint does not fit.
    """
    folder = teacher_folder(run.cfg)
    if not folder:
        clip = load_backbone(run.cfg.MODEL, run.cfg.INPUT, settings.TEACHER_NAME)
        sentence = template(run.cfg.DATASET.NAME)
        names = [normalise_name(name) for name in class_names]
        teacher: CLIPClassifier = ZeroShotCLIP(clip, [[sentence.format(name)] for name in names])
        teacher.name = f"zero-shot {settings.TEACHER_NAME}"
    elif (Path(folder) / "config.yaml").is_file():
        teacher = teacher_of_run(Path(folder), class_names, run)
    else:
        teacher = published_teacher(Path(folder), class_names, settings, run)
    logger.info("Teacher: %s", teacher.name)
    return teacher


def teacher_of_run(folder: Path, class_names: list[str], run: Run) -> CLIPClassifier:
    """The tuned model of an earlier run."""
    from trainers.open_run import read_run_config

    cfg = read_run_config(folder)
    trainer: type[CLIPTrainer] = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    settings = read_settings(cfg, trainer.node, trainer.settings_class)
    backbone = cfg.MODEL.BACKBONE
    cfg.MODEL.TRUST_WEIGHTS = run.cfg.MODEL.TRUST_WEIGHTS
    clip = load_backbone(cfg.MODEL, run.cfg.INPUT)
    teacher = trainer.build(clip, class_names, settings, run._replace(cfg=cfg))
    if teacher.learned is None:
        teacher.name = f"{cfg.TRAINER.NAME} on {backbone.NAME}"
        return teacher
    path = find_checkpoint(folder, trainer.checkpoint_name)
    return with_weights(
        teacher, read_checkpoint(path), path, f"{cfg.TRAINER.NAME} on {backbone.NAME}"
    )


def published_teacher(
    folder: Path, class_names: list[str], settings: PromptKDSettings, run: Run
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
    saved["state_dict"] = to_our_names(saved["state_dict"], teacher, path)
    return with_weights(teacher, saved, path, f"PromptSRC on {settings.TEACHER_NAME}")


def shape_of(state: dict[str, Any], ctx_init: str) -> PromptSRCSettings:
    """Lengths and depths of the prompts in a published PromptSRC checkpoint."""
    depths = {
        tower: 1 + sum(key.startswith(tower) and key.endswith(".VPT_shallow") for key in state)
        for tower in ("image_encoder", "text_encoder")
    }
    vision = state.get("image_encoder.VPT")
    ctx = state.get("prompt_learner.ctx")
    return PromptSRCSettings(
        N_CTX_TEXT=length_of(ctx),
        N_CTX_VISION=length_of(vision),
        PROMPT_DEPTH_TEXT=depths["text_encoder"],
        PROMPT_DEPTH_VISION=0 if vision is None else depths["image_encoder"],
        CTX_INIT=ctx_init,
    )


def length_of(prompt: Any) -> int:
    """The number of vectors in a prompt; the published one where there is none.

    Raises:
        ValueError: it is no prompt of CLIP's.
    """
    if prompt is None:
        return PromptSRCSettings.N_CTX_TEXT
    if prompt.dim() != 2 or len(prompt) > CONTEXT:
        raise ValueError(
            f"the teacher's prompt has the shape {tuple(prompt.shape)}, and a prompt is at most "
            f"{CONTEXT} vectors; take another TRAINER.PROMPTKD.TEACHER_DIR"
        )
    return len(prompt)


def with_weights(
    teacher: CLIPClassifier, saved: dict[str, Any], path: Path, name: str
) -> CLIPClassifier:
    """Load a teacher's weights; they become part of its name."""
    load_into(teacher.learned, saved, path)
    teacher.name = f"{name}, {digest(teacher.learned)}"
    return teacher
