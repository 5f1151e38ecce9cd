"""Our form of every tuner and the published one, with the same weights, checked to be equal."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from lab import published
from lab.bench.backbones import Schedule
from lab.bench.works import classifier, published_classifier
from models.classifier import CLIPClassifier
from models.clip.blocks import unit
from models.clip.prune import TokenPruner
from models.clip.tokenizer import normalise_name
from models.spotlighter.head import SpotlighterHead
from models.spotlighter.memory import Written
from models.spotlighter.model import SpotlightedCLIP
from models.spotlighter.options import HeadOptions
from runs.config import default_config
from trainers import TRAINERS
from trainers.published import published_state
from trainers.settings import BuildContext
from trainers.templates import DEFAULT, DIVERSE

WORDS = "a photo of a"  # as the published forms begin by themselves
TRAINER = {trainer.__name__: trainer for trainer in TRAINERS}
DEPTH = (9, 12)  # published: prompts in 9 of 12 blocks
SHAKE = 0.01  # added to learned tensors, so that those that start at 0 count
TOLERANCE = 1e-5  # float32 sums over 77 and over fewer positions are rounded differently
MEMORY_SIZE = 25


@dataclass
class Pair:
    """Both forms of a tuner on the same CLIP."""

    ours: nn.Module
    published: published.Published


def settings_of(name: str, clip: nn.Module) -> dict[str, object]:
    """The published settings, prompts as deep as the towers allow."""
    towers = (clip.visual.transformer.resblocks, clip.transformer.resblocks)
    vision, text = (round(len(blocks) * DEPTH[0] / DEPTH[1]) for blocks in towers)
    return {
        "CoOp": {"CTX_INIT": WORDS},
        "CoCoOp": {"CTX_INIT": WORDS},
        "MaPLe": {"PROMPT_DEPTH": min(vision, text)},
        "PromptSRC": {"PROMPT_DEPTH_VISION": vision, "PROMPT_DEPTH_TEXT": text},
        "TextRefiner": {"MEMORY_SIZE": MEMORY_SIZE},
    }[name]


def build_tuner(name: str, clip: nn.Module, class_names: Sequence[str]) -> CLIPClassifier:
    """A tuner as its trainer builds it; its learned tensors are moved a little."""
    cfg = default_config()
    cfg.TRAINER.COOP.CTX_INIT = WORDS
    trainer = TRAINER[name]
    run = BuildContext(cfg, SimpleNamespace(classnames=list(class_names)))
    settings = trainer.settings_class(**settings_of(name, clip))
    tuner = trainer.build(clip, list(class_names), settings, run)
    if name == "PromptSRC":
        # Both forms compute the mean over 60 sentences once, before training: one serves here.
        tuner.sentences = tuner.sentences[:1]
    with torch.no_grad():
        for parameter in tuner.learned.parameters():
            parameter.add_(SHAKE * torch.randn_like(parameter))
    return tuner.to(clip.logit_scale.device)


def with_head(base: CLIPClassifier, class_names: Sequence[str]) -> SpotlightedCLIP:
    """Spotlighter with a filled bank and every part weighed; the bank's content is random."""
    anchors = base.text.encode([DEFAULT.format(normalise_name(name)) for name in class_names])
    options = HeadOptions()
    head = SpotlighterHead(list(class_names), anchors, options).to(anchors.device)
    kept = unit(torch.randn(len(anchors), options.topk, anchors.shape[1])).to(anchors)
    weight = torch.rand(kept.shape[:2]).to(anchors)
    label = torch.arange(len(anchors), device=anchors.device)
    head.memory.fill(Written(anchors, kept, weight, label), unit(kept.mean((0, 1))))
    with torch.no_grad():
        head.level.fill_(0.5)
    return SpotlightedCLIP(base, head).to(anchors.device)


def build_ours(
    name: str, clip: nn.Module, class_names: Sequence[str], schedule: Schedule | None = None
) -> nn.Module:
    """Our form on a CLIP; with a schedule it drops patches."""
    tuner = build_tuner("CoOp" if name == "Spotlighter" else name, clip, class_names)
    if schedule is not None:
        pruner = TokenPruner(**schedule._asdict(), width=clip.visual.conv1.out_channels)
        tuner.prune(pruner.to(clip.logit_scale.device))
    return with_head(tuner, class_names) if name == "Spotlighter" else tuner


def build_pair(
    name: str, clip: nn.Module, class_names: Sequence[str], *, copies: bool = False
) -> Pair:
    """Both forms; they share CLIP, or ours has a copy that may be cast."""
    ours = build_ours(name, copy.deepcopy(clip) if copies else clip, class_names)
    if name == "Spotlighter":
        return Pair(ours, released(clip, class_names))
    return Pair(ours, as_published(name, ours, clip, class_names))


def as_published(
    name: str, ours: nn.Module, clip: nn.Module, class_names: Sequence[str]
) -> published.Published:
    """The published form with the learned tensors of ours."""
    options: dict[str, object] = {}
    if name == "PromptSRC":
        options["templates"] = DIVERSE[:1]
    if name == "TextRefiner":
        options["memory_item"] = ours.learned.memory.slots
    kind = getattr(published, f"Published{name}")
    learned = published_state(dict(ours.learned.named_parameters()))
    return kind(clip, class_names, learned, **options)


def released(clip: nn.Module, class_names: Sequence[str]) -> published.Published:
    """The released Spotlighter with random weights; it is another method than ours."""
    tuner = build_tuner("TextRefiner", clip, class_names)
    refiner = as_published("TextRefiner", tuner, clip, class_names)
    slots, width = refiner.memory_item, clip.text_projection.shape[1]
    learned = dict(refiner.learned)
    for part in ("query", "key", "value", "out"):
        learned[f"{part}.weight"] = width**-0.5 * torch.randn(width, width).to(slots)
        learned[f"{part}.bias"] = torch.zeros(width).to(slots)
    return published.PublishedSpotlighter(clip, class_names, learned, memory_item=slots)


def relative_error(pair: Pair, images: Tensor) -> float:
    """Largest difference of the logits of both forms, in evaluation, over the largest logit."""
    expected = published_classifier(pair.published)(images)
    found = classifier(pair.ours)(images)
    return ((found - expected).abs().max() / expected.abs().max()).item()


def require_equal(name: str, error: float) -> None:
    """Refuse to time forms that differ by more than rounding."""
    if not error <= TOLERANCE:  # also when it is no number
        raise ValueError(
            f"ours and the published {name} differ by {error:.1e} of the largest logit, and "
            f"rounding explains {TOLERANCE:.0e}; their times cannot be compared until they agree"
        )
