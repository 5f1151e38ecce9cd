"""Every prompt tuner on a tiny random CLIP, and its learned tensors under the published names."""

from types import SimpleNamespace

import torch
from dassl.config import get_cfg_default

from models.classifier import CLIPClassifier
from models.clip.prune import LinearDiscriminant, most_attended
from models.prompts import random_prompts
from models.spotlighter.evidence import write
from models.spotlighter.head import SpotlighterHead
from models.spotlighter.model import SpotlightedCLIP
from models.spotlighter.options import HeadOptions
from tests.conftest import make_clip
from trainers import TRAINERS, extend_cfg
from trainers.promptkd import Projector, PromptKDModel
from trainers.settings import BuildContext

TRAINER = {trainer.__name__: trainer for trainer in TRAINERS}
WORDS = "a photo of a"
SETTINGS = {
    "CoOp": {"N_CTX": 4, "CTX_INIT": WORDS},
    "ProGrad": {"N_CTX": 6, "CTX_INIT": WORDS},
    "TCP": {"N_CTX": 4},
    "CoCoOp": {"CTX_INIT": WORDS},
    "MaPLe": {"PROMPT_DEPTH": 2},
    "IVLP": {"PROMPT_DEPTH_VISION": 3, "PROMPT_DEPTH_TEXT": 2, "N_CTX_VISION": 3},
    "VPT": {"PROMPT_DEPTH_VISION": 2, "N_CTX_VISION": 3},
    "PromptSRC": {"PROMPT_DEPTH_VISION": 3, "PROMPT_DEPTH_TEXT": 2, "N_CTX_VISION": 3},
    "TextRefiner": {"MEMORY_SIZE": 7},
    **{"CLIPAdapter": {}, "ZeroshotCLIP": {}},
    "ZSLP": {},
    "CLAP": {},
    "TaskRes": {"RESIDUAL_SCALE": 0.5},
    "LPPlusPlus": {},
}
BASES = ("CoOp", "CoCoOp", "KgCoOp", "ProGrad", "MaPLe", "PromptSRC", "PromptKD")  # of Spotlighter
COMPUTED = [name for name, trainer in TRAINER.items() if trainer.computed]
LEARNED = [name for name, trainer in TRAINER.items() if trainer.learns and name != "Spotlighter"]
TUNERS = [name for name in LEARNED if name not in COMPUTED]  # trained in steps


def make_run(class_names):
    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.TRAINER.COOP.CTX_INIT = WORDS
    return BuildContext(cfg, SimpleNamespace(classnames=list(class_names)))


def make_tuner(name, clip, class_names, **settings) -> CLIPClassifier:
    """A tuner as its trainer builds it; PromptKD with a PromptSRC teacher of another width."""
    torch.manual_seed(0)
    if name == "PromptKD":
        return make_student(clip, class_names, **settings)
    trainer = TRAINER[name]
    chosen = trainer.settings_class(**SETTINGS.get(name, {"CTX_INIT": WORDS}) | settings)
    return trainer.build(clip, list(class_names), chosen, make_run(class_names))


def make_student(clip, class_names, rows=None, temperature=2.0):
    teacher = make_tuner("PromptSRC", make_clip(seed=5, vision_width=64, joint=48), class_names)
    teacher.name = "a teacher"
    projector = Projector(32, 48)
    vision = random_prompts(3, 4, clip.visual.conv1.out_channels)
    options = {"rows": rows, "weight": 1000.0, "temperature": temperature}
    return PromptKDModel(clip, vision, projector, teacher, **options)


def make_spotlighted(base_name, clip, class_names, **options):
    base = make_tuner(base_name, clip, class_names)
    names = [name.replace("_", " ") for name in class_names]
    anchors = base.text.encode([f"a photo of a {name}." for name in names])
    return SpotlightedCLIP(base, SpotlighterHead(class_names, anchors, HeadOptions(**options)))


def shake(module, seed=3, size=0.1):
    """Move every learned tensor away from its start, so that each one shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def fill(model, images, label):
    """Fill the bank of a model's head; its weights stay the base's alone."""
    tokens, statistics = model.base.encode_image(images, model.patch_path), LinearDiscriminant()
    statistics.add(tokens.patches, most_attended(tokens.cls_attention))
    direction = statistics.direction()
    text = model.head.anchors
    text = text if model.base.text_depends_on_image else model.base.encode_text(text)
    written = write(model, lambda: [(tokens, label)], label, direction, text)
    model.head.memory.fill(written, direction)


@torch.no_grad()
def shake_head(head, seed=3):
    """Move every scalar of a head and all that is fitted away from its start, weights above 0."""
    shake(head.requires_grad_(True), seed, size=0.2)
    head.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    fitted = (head.base, head.level, head.candidates, head.new_candidates, head.new_parts)
    for weights in fitted:
        weights.copy_(0.5 + torch.rand(weights.shape, generator=generator))
    for weights in (head.new_candidates, head.new_parts):  # of NEW: off, never fitted
        weights[-1] = torch.eye(weights.shape[1])[0]
    head.new_offset.copy_(torch.tensor([0.3, -0.4, 0.6]))
    head.new_kind.fill_(1)
