"""Adapted CLIPs, and features of imagined training pictures."""

from types import SimpleNamespace

import torch
from dassl.config import get_cfg_default

from models.adapters import Features
from tests.tuners import COMPUTED, TRAINER
from trainers import extend_cfg
from trainers.adapters import AdapterSettings
from trainers.settings import BuildContext

SHOTS, VIEWS = 5, 3
ADAPTERS = [n for n in COMPUTED if issubclass(TRAINER[n].settings_class, AdapterSettings)]


def make_adapted(name, clip, class_names, pictures=0, **settings):
    """A model as its trainer builds it."""
    cfg = get_cfg_default()
    extend_cfg(cfg)
    run = BuildContext(cfg, SimpleNamespace(classnames=list(class_names), train_x=[0] * pictures))
    trainer = TRAINER[name]
    chosen = trainer.settings_class(**settings)
    return trainer.build(clip, list(class_names), chosen, run).eval()


def make_features(text, shots=(SHOTS,), views=VIEWS, seed=0):
    """Features around text features (C, D); class c has shots[c % len(shots)] pictures.

    Another seed gives other pictures of the same classes.
    """
    generator, width = torch.Generator().manual_seed(9), text.shape[1]
    centre = text + 0.5 * torch.randn(text.shape, generator=generator) / width**0.5
    generator.manual_seed(seed)
    counts = [shots[c % len(shots)] for c in range(len(text))]
    label = torch.arange(len(text)).repeat_interleave(torch.tensor(counts))
    label = label[torch.randperm(len(label), generator=generator)]
    noise = torch.randn(views + 1, len(label), width, generator=generator) / width**0.5
    every = 3 * (centre[label] + 0.8 * noise)
    return Features(every[1:], torch.nn.functional.normalize(every[0], dim=-1), label)
