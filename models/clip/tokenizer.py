"""Sentences -> token ids, as a backbone's text tower was trained on them."""

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor, nn

from models.clip.openai import import_clip

logger = logging.getLogger(__name__)

SAMPLE = "a photo"  # whose tokens say where a sentence begins and ends


class Tokens(NamedTuple):
    """Token ids, with L the longest sentence of the list."""

    ids: Int[Tensor, "C L"]
    eos: Int[Tensor, " C"]  # positions


class Tokenizer:
    """A tokenizer of any kind, cut behind the longest sentence.

    `num_start` tokens stand before the words: 1 (SOS) in CLIP, 0 where no mark begins a sentence.
    """

    def __init__(
        self, encode: Callable[[list[str], int], Tensor], words: Callable[[str], list[int]],
        context_length: int, end: int | None = None,
    ) -> None:
        """Wrap a tokenizer.

        `encode` takes C sentences and a length L and gives ids (C, L), marks included, cut and
        filled up; `words` gives the ids of a text alone. `end` is the id of the mark that ends a
        sentence; None where that is the highest id of all. Raises ValueError if sentences do not
        end where the text tower reads them.
        """
        self.encode, self.words, self.end = encode, words, end
        self.context_length = context_length
        ids, own = encode([SAMPLE], context_length), words(SAMPLE)
        last = int(self._ends(ids))
        self.num_start = last - len(own)
        found = ids[0, max(0, self.num_start) : last].tolist()
        if found != own or (end is not None and int(ids[0, last]) != end):
            raise ValueError(
                f"this tokenizer does not write the tokens of {SAMPLE!r} and then the mark "
                f"{'with the highest id' if end is None else end} that the text tower reads; its "
                "kind is not supported"
            )

    def _ends(self, ids: Int[Tensor, "C L"]) -> Int[Tensor, " C"]:
        """The position of each sentence's first EOS."""
        return ids.argmax(-1) if self.end is None else (ids == self.end).int().argmax(-1)

    def tokenize(self, texts: list[str], context_length: int | None = None) -> Tokens:
        """Encode C sentences; one longer than the context is cut, and a warning names it."""
        length = context_length or self.context_length
        ids = self.encode(texts, length)
        eos = self._ends(ids)
        for text in (texts[i] for i in (eos == length - 1).nonzero().flatten().tolist()):
            if self.num_start + self.count(text) + 1 > length:
                logger.warning("cut to %d tokens: %r", length, text)
        return Tokens(ids[:, : int(eos.max()) + 1], eos)

    def count(self, text: str) -> int:
        """Tokens of a text, without marks."""
        return len(self.words(text))


def clip_tokenizer(context_length: int = 77) -> Tokenizer:
    """CLIP's byte-pair encoding."""
    clip = import_clip()
    encode = partial(clip.tokenize, truncate=True)
    return Tokenizer(encode, clip.clip._tokenizer.encode, context_length)


def tokenizer_of(clip: nn.Module) -> Tokenizer:
    """The tokenizer of a CLIP: its own, or OpenAI's."""
    return getattr(clip, "tokenizer", None) or clip_tokenizer(clip.context_length)


def normalise_name(name: str) -> str:
    """A class name as prompts use it: underscores are spaces."""
    return " ".join(name.replace("_", " ").split())
