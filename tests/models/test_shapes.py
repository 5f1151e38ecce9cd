"""OpenAI's backbones by shape alone: on the meta device nothing is computed and nothing stored."""

import pytest
import torch

from models.clip.load import random_clip
from models.prompts import PromptLearner
from models.spotlighter.head import SpotlighterHead
from models.spotlighter.model import SpotlightedCLIP
from models.spotlighter.options import HeadOptions
from tests.tuners import TRAINER, TUNERS, make_run
from trainers import promptsrc
from trainers.coop import CoOpModel

NAMES = ["goldfish", "great white shark", "hen"]


@pytest.mark.parametrize(
    ("backbone", "size", "patches", "joint"),
    [("ViT-B/32", 224, 49, 512), ("ViT-B/16", 224, 196, 512), ("ViT-L/14@336px", 336, 576, 768)],
)
@pytest.mark.parametrize("options", [{"new": "inherit"}, {"new": "text", "tokens": "raw"}])
def test_spotlighter_on_openais_vits(backbone, size, patches, joint, options):
    with torch.device("meta"):
        clip, images = random_clip(backbone), torch.empty(2, 3, size, size)
        anchors = torch.empty(len(NAMES), joint)
    prompts = PromptLearner(NAMES, clip.token_embedding, ctx_init="a photo of a")
    head = SpotlighterHead(NAMES, anchors, HeadOptions(**options))
    model = SpotlightedCLIP(CoOpModel(clip, prompts), head).to("meta")
    out = model.forward_all(images)
    assert out.logits.shape == (2, 3)
    assert out.logits.device.type == "meta"
    assert out.tokens.patches.shape == (2, patches, joint)
    assert out.head.selection.tokens.shape == (2, 5, joint)
    assert sum(p.numel() for p in head.parameters(recurse=False)) == 21


@pytest.mark.parametrize("name", sorted({*TUNERS} - {"PromptKD"}))
def test_every_tuner_on_openais_vit(name, monkeypatch):
    """Published sizes: 9 blocks with prompts, whatever the device."""
    monkeypatch.setattr(promptsrc, "DIVERSE", promptsrc.DIVERSE[:2])  # the meta device is slow
    trainer = TRAINER[name]
    with torch.device("meta"):
        clip, images = random_clip("ViT-B/16"), torch.empty(2, 3, 224, 224)
    model = trainer.build(clip, NAMES, trainer.settings_class(), make_run(NAMES)).to("meta")
    step = model.train().step(images, torch.zeros(2, dtype=torch.long, device="meta"))
    assert step.logits.shape == (2, 3)
    assert all(part.device.type == "meta" for part in step.losses.values())


def test_coop_on_openais_resnet():
    with torch.device("meta"):
        clip, images = random_clip("RN50"), torch.empty(2, 3, 224, 224)
    prompts = PromptLearner(NAMES, clip.token_embedding, n_ctx=16)
    logits = CoOpModel(clip, prompts).to("meta")(images)
    assert logits.shape == (2, 3)
