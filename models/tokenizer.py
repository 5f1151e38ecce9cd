"""CLIP's byte-pair encoding, cut behind the longest sentence."""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from models.loading import import_clip

logger = logging.getLogger(__name__)


class Tokens(NamedTuple):
    """Token ids (C, L), with L the longest sentence of the list, and each one's EOS position."""

    ids: Int[Tensor, "C L"]
    eos: Int[Tensor, " C"]

    def to(self, device: torch.device) -> Tokens:
        """The same on another device."""
        return Tokens(self.ids.to(device), self.eos.to(device))


def normalise_name(name: str) -> str:
    """A class name as prompts use it: underscores are spaces."""
    return " ".join(name.replace("_", " ").split())


def tokenize(texts: list[str], context_length: int) -> Tokens:
    """Encode sentences; one too long for the context is cut, and a warning names it.

    Args:
        texts: C sentences.
        context_length: positions of the text tower, SOS and EOS counted (77 in CLIP).
    """
    clip = import_clip()
    ids = clip.tokenize(texts, context_length=context_length, truncate=True)
    # EOS has the highest id of the vocabulary, so argmax finds it.
    eos = ids.argmax(dim=-1)
    for text in (texts[i] for i in (eos == context_length - 1).nonzero().flatten().tolist()):
        if count_tokens(text) > context_length - 2:
            logger.warning("cut to %d tokens: %r", context_length, text)
    return Tokens(ids[:, : int(eos.max()) + 1], eos)


def count_tokens(text: str) -> int:
    """Byte-pair tokens of `text`, without SOS and EOS."""
    tokenizer = import_clip().clip._tokenizer
    return len(tokenizer.encode(text))
