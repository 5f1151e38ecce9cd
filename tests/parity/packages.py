"""Small towers of OpenAI's `clip` and of open_clip, beside the packages' own encoders."""

from typing import Any, NamedTuple

import pytest
import torch

from models.clip.load import load_clip
from models.clip.openai import import_clip
from tests.conftest import in_dtype, make_clip
from tests.open_clip_models import make_config, write_folder

PACKAGES = ("clip", "open_clip")


class Towers(NamedTuple):
    """A CLIP for a model of ours, and the same in its own package; both in float64."""

    clip: Any
    own: Any
    tokenize: Any
    size: int  # of a picture, in pixels

    @torch.no_grad()
    def image(self, images):
        return self.own.encode_image(images)

    @torch.no_grad()
    def text(self, sentences):
        """Features, not of unit length."""
        return self.own.encode_text(self.tokenize(sentences))

    def pictures(self, count, seed=1):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, 3, self.size, self.size, generator=generator)


def make_towers(package, folder):
    if package == "clip":
        return Towers(make_clip(), make_clip(), import_clip().tokenize, 32)
    open_clip = pytest.importorskip("open_clip")
    torch.set_default_dtype(torch.float32)  # so are files of weights
    own = write_folder(folder / "model", make_config())
    torch.set_default_dtype(torch.float64)
    name = f"local-dir:{folder / 'model'}"
    clip, tokenize = load_clip(f"open_clip:{name}"), open_clip.get_tokenizer(name)
    return Towers(in_dtype(clip), in_dtype(own), tokenize, 64)
