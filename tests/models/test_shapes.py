"""OpenAI's backbones by shape alone: on the meta device nothing is computed and nothing stored."""

import pytest
import torch

from models.classifier import PromptedCLIP
from models.head_options import HeadOptions
from models.loading import random_clip
from models.prompt_learner import PromptLearner
from models.spotlighted_clip import SpotlightedCLIP
from models.spotlighter import SpotlighterHead

NAMES = ["goldfish", "great white shark", "hen"]


@pytest.mark.parametrize(
    ("backbone", "size", "patches", "joint"),
    [("ViT-B/32", 224, 49, 512), ("ViT-B/16", 224, 196, 512), ("ViT-L/14@336px", 336, 576, 768)],
)
@pytest.mark.parametrize("options", [{}, {"head": "full", "tokens": "adapter"}])
def test_spotlighter_on_openais_vits(backbone, size, patches, joint, options):
    with torch.device("meta"):
        clip, images = random_clip(backbone), torch.empty(2, 3, size, size)
        anchors = torch.empty(len(NAMES), joint)
    prompts = PromptLearner(NAMES, clip.token_embedding, ctx_init="a photo of a")
    head = SpotlighterHead(NAMES, anchors, HeadOptions(**options))
    model = SpotlightedCLIP(PromptedCLIP(clip, prompts), head).to("meta")
    out = model.analyse(images)
    assert out.logits.shape == (2, 3)
    assert out.logits.device.type == "meta"
    assert out.tokens.patches.shape == (2, patches, joint)
    assert out.head.selection.tokens.shape == (2, 5, joint)
    assert sum(p.numel() for p in head.parameters(recurse=False)) == 21


def test_coop_on_openais_resnet():
    with torch.device("meta"):
        clip, images = random_clip("RN50"), torch.empty(2, 3, 224, 224)
    prompts = PromptLearner(NAMES, clip.token_embedding, n_ctx=16)
    logits = PromptedCLIP(clip, prompts).to("meta")(images)
    assert logits.shape == (2, 3)
