"""Small towers of OpenAI's `clip` and of open_clip, beside the packages' own."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from models.clip.load import load_clip
from models.clip.openai import import_clip
from tests.conftest import in_dtype, make_clip
from tests.open_clip_models import make_config, write_folder


class Towers(NamedTuple):
    """A CLIP to build a model on, and its equal by the package alone, frozen; both in float64.

    Features are not of unit length.
    """

    clip: Any
    own: Any
    tokenize: Callable[[list[str]], Tensor]
    run_block: Callable[..., Tensor]  # of the text tower: model, block, (C, L, W)
    size: int  # of a picture, in pixels

    @property
    def scale(self):
        """Factor of the cosines."""
        return self.own.logit_scale.exp()

    def pictures(self, count, seed=1):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, 3, self.size, self.size, generator=generator)

    def image(self, images):
        return self.own.encode_image(images)

    def text(self, sentences):
        return self.own.encode_text(self.tokenize(sentences))

    def class_text(self, class_names):
        """Text features of "a photo of a NAME."."""
        return self.text([f"a photo of a {name.replace('_', ' ')}." for name in class_names])

    def prompted(self, sentences, ctx, depth=None, later=None):
        """Text features with ctx (M, W) behind the first token.

        Before block `depth`, `later` (C, M, W) replaces it.
        """
        ids = self.tokenize(sentences)
        x = _replace(self.own.token_embedding(ids), ctx.expand(len(ids), -1, -1))
        x = x + self.own.positional_embedding[: x.shape[1]]
        for number, block in enumerate(self.own.transformer.resblocks):
            x = self.run_block(self.own, block, _replace(x, later) if number == depth else x)
        x = self.own.ln_final(x)[torch.arange(len(x)), ids.argmax(-1)]
        return x @ self.own.text_projection


def _replace(x, ctx):
    return torch.cat([x[:, :1], ctx, x[:, 1 + ctx.shape[1] :]], dim=1)


def _length_first(_, block, x):
    return block(x.permute(1, 0, 2)).permute(1, 0, 2)  # it carries its causal mask


def _batch_first(model, block, x):
    return block(x, attn_mask=model.attn_mask)


def _openai(_):
    return Towers(make_clip(), make_clip(), import_clip().tokenize, _length_first, 32)


def _open_clip(folder):
    open_clip = pytest.importorskip("open_clip")
    own = write_folder(folder, make_config()).float()  # as load_clip reads the file
    name = f"local-dir:{folder}"
    clip, tokenize = in_dtype(load_clip(f"open_clip:{name}")), open_clip.get_tokenizer(name)
    return Towers(clip, in_dtype(own), tokenize, _batch_first, 64)


MADE: dict[Callable[..., Towers], Towers] = {}


@pytest.fixture(params=[_openai, _open_clip], ids=["openai", "open_clip"])
def towers(request, float64, tmp_path):
    """Made once; each test has a copy of the CLIP that it builds on."""
    if request.param not in MADE:
        MADE[request.param] = request.param(tmp_path / "towers")
        MADE[request.param].own.requires_grad_(False)
    made = MADE[request.param]
    return made._replace(clip=deepcopy(made.clip))
