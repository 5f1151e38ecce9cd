"""Captions of a concept, and the small vocabulary that they need."""

import random
from functools import lru_cache

import clip
import torch
from jaxtyping import Int
from torch import Tensor

from lab.pretrain.sources import Concept

CONTEXT = 12  # tokens; what follows the end token is never attended to, so 77 give the same
MAIN_TEMPLATE = "a photo of a {}."
MAIN_SHARE = 0.5
TAG_SHARE = 0.15
TEMPLATES = (
    "a photo of the {}.",
    "a picture of a {}.",
    "a drawing of a {}.",
    "an emoji of a {}.",
    "a {}.",
    "{}",
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a photo of the small {}.",
    "a {} in a video game.",
    "art of the {}.",
)


class Captioner:
    """Writes captions: a name of the concept in a template, sometimes with a tag.

    `other_names` are further names by code point.
    """

    def __init__(self, concepts: list[Concept], other_names: dict[str, str]) -> None:
        self.names = [
            list(dict.fromkeys([c.name, other_names.get(c.code_point, c.name)])) for c in concepts
        ]
        self.tags = [concept.tags for concept in concepts]

    def write(self, concept: int, rng: random.Random) -> str:
        """One caption of a concept."""
        name = rng.choice(self.names[concept])
        if self.tags[concept] and rng.random() < TAG_SHARE:
            name = f"{name}, {rng.choice(self.tags[concept])}"
        template = MAIN_TEMPLATE if rng.random() < MAIN_SHARE else rng.choice(TEMPLATES)
        return template.format(name)

    def vocabulary(self) -> Int[Tensor, "V"]:
        """The ids, ascending, of all tokens that a caption can hold (padding included)."""
        texts = [template.format("") for template in (MAIN_TEMPLATE, *TEMPLATES)]
        texts += ["x, x"] + [text for texts in (*self.names, *self.tags) for text in texts]
        return torch.stack([tokenize(text) for text in texts]).unique()


@lru_cache(maxsize=200_000)
def tokenize(text: str) -> Int[Tensor, "L"]:
    """The byte-pair tokens of a caption, cut to `CONTEXT`."""
    return clip.tokenize(text, context_length=CONTEXT, truncate=True)[0].long()
