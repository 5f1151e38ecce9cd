"""Adapted CLIPs on small towers, and features of imagined training pictures."""

from types import SimpleNamespace

import pytest
import torch
from dassl.config import get_cfg_default

from models.adapters import Features
from models.clip.load import load_clip
from models.clip.openai import import_clip
from tests.conftest import in_dtype, make_clip
from tests.open_clip_models import make_config, write_folder
from tests.tuners import COMPUTED, TRAINER
from trainers import extend_cfg
from trainers.adapters import AdapterSettings
from trainers.settings import BuildContext

SHOTS, VIEWS = 5, 3
ADAPTERS = [n for n in COMPUTED if issubclass(TRAINER[n].settings_class, AdapterSettings)]


class Towers:
    """A CLIP of ours to build a model on, and features by its authors' own modules."""

    def __init__(self, ours, theirs, tokenize, size):
        self.ours, self.theirs, self.tokenize, self.size = ours, theirs, tokenize, size

    @torch.no_grad()
    def text(self, class_names):
        """Unit text features of "a photo of a {}.", one after the other."""
        found = []
        for name in class_names:
            tokens = self.tokenize([f"a photo of a {name.replace('_', ' ')}."])
            feature = self.theirs.encode_text(tokens)[0]
            found.append(feature / feature.norm())
        return found

    @torch.no_grad()
    def image(self, images):
        """Image features, not of unit length."""
        return [self.theirs.encode_image(image.unsqueeze(0))[0] for image in images]

    @property
    def scale(self):
        return self.theirs.logit_scale.exp().item()


def openai_towers(folder):
    return Towers(make_clip(), make_clip(), import_clip().tokenize, 32)


def open_clip_towers(folder):
    open_clip = pytest.importorskip("open_clip")
    theirs = write_folder(folder / "model", make_config())
    name = f"local-dir:{folder / 'model'}"
    ours = in_dtype(load_clip(f"open_clip:{name}"))
    return Towers(ours, in_dtype(theirs.float()), open_clip.get_tokenizer(name), 64)


TOWERS = {"OpenAI": openai_towers, "open_clip": open_clip_towers}
MADE = {}


def towers_of(kind, folder):
    """Towers of torch's default dtype; made once, for no test changes them."""
    key = kind, torch.get_default_dtype()
    if key not in MADE:
        MADE[key] = TOWERS[kind](folder)
    return MADE[key]


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
