"""Unit features from the modules of OpenAI's clip and of open_clip, for slow formulations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lab.published.common import encode_image, normalise
from models.clip.load import load_clip
from models.clip.openai import import_clip
from tests.conftest import in_dtype, make_clip
from tests.open_clip_models import make_config, write_folder

KINDS = ("openai", "open_clip")


class Towers(NamedTuple):
    """`clip` is the project's; the functions know the package's own model alone."""

    clip: Any
    images: Tensor  # (4, 3, S, S)
    scale: Tensor
    image: Callable[[Tensor], Tensor]  # (B, 3, S, S) -> (B, D)
    # sentences, context (M, W), and what replaces it before a block, (C, M, W) -> (C, D)
    text: Callable[..., Tensor]


def towers(kind, tmp_path) -> Towers:
    """Two equal models; a context replaces the words behind the first token."""
    if kind == "openai":
        return _towers(make_clip(), make_clip(), 32, encode_image, _length_first, _openai_ids)
    import open_clip

    dtype, name = torch.get_default_dtype(), f"local-dir:{tmp_path / 'model'}"
    torch.set_default_dtype(torch.float32)  # of the file, which the project reads as float32
    theirs, ours = write_folder(tmp_path / "model", make_config()), load_clip(f"open_clip:{name}")
    torch.set_default_dtype(dtype)
    theirs, ours = in_dtype(theirs), in_dtype(ours)
    ids = open_clip.get_tokenizer(name)
    return _towers(ours, theirs, 64, type(theirs).encode_image, _batch_first, ids)


def _towers(ours, theirs, size, image, run_block, tokenise):
    theirs.requires_grad_(False)
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))

    def encode_text(sentences, ctx=None, at=None, own=None):
        ids = tokenise(sentences)
        x = theirs.token_embedding(ids)
        if ctx is not None:
            rows = ctx.expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], rows, x[:, 1 + rows.shape[1] :]], dim=1)
        x = x + theirs.positional_embedding[: x.shape[1]]
        for depth, block in enumerate(theirs.transformer.resblocks):
            if depth == at:
                x = torch.cat([x[:, :1], own, x[:, 1 + own.shape[1] :]], dim=1)
            x = run_block(theirs, block, x)
        x = theirs.ln_final(x)[torch.arange(len(x)), ids.argmax(-1)]
        return normalise(x @ theirs.text_projection)

    return Towers(
        *(ours, images, theirs.logit_scale.exp()),
        *(lambda batch: normalise(image(theirs, batch)), encode_text),
    )


def _openai_ids(sentences):
    return import_clip().tokenize(sentences)


def _length_first(_, block, x):
    return block(x.permute(1, 0, 2)).permute(1, 0, 2)  # it carries its causal mask


def _batch_first(model, block, x):
    return block(x, attn_mask=model.attn_mask)
