"""An endless, resumable stream of training batches, composed in a worker process."""

import random
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lab.pretrain.captions import Captioner, tokenize
from lab.pretrain.compose import Composer
from lab.pretrain.sources import Sprites

EASY_STEPS = 3000  # over which the pictures grow as cluttered as they get
OPENMOJI_SHARE = 0.3  # of the pictures of a concept that OpenMoji draws


class Batch(NamedTuple):
    """Pictures of B different concepts, and a caption for each."""

    pixels: Float[Tensor, "B 3 64 64"]  # normalised
    on_object: Bool[Tensor, "B 64"]  # whether a patch shows the object
    tokens: Int[Tensor, "B L"]  # rows of the trained vocabulary
    ends: Int[Tensor, "B"]  # position of a caption's end token
    concepts: Int[Tensor, "B"]


class BatchStream(IterableDataset[Batch]):
    """Composes batch after batch; batch n depends on the seed and on n only.

    A batch shows `batch_size` different concepts, drawn by their relative frequencies `weights`.
    """

    def __init__(
        self,
        sprites: Sprites,
        captioner: Captioner,
        weights: Float[Tensor, "n"],
        batch_size: int,
        first_step: int = 0,
        seed: int = 0,
    ) -> None:
        self.sprites, self.captioner, self.weights = sprites, captioner, weights
        self.batch_size, self.first_step, self.seed = batch_size, first_step, seed
        self.vocabulary = captioner.vocabulary()
        self.by_concept: list[tuple[list[int], list[int]]] = [([], []) for _ in weights]
        pairs = zip(sprites.concept.tolist(), sprites.is_openmoji.tolist(), strict=True)
        for index, (concept, openmoji) in enumerate(pairs):
            self.by_concept[concept][openmoji].append(index)

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        for step in count(self.first_step):
            yield self.compose(step)

    def compose(self, step: int) -> Batch:
        """Batch number `step`."""
        number = self.seed * 1_000_003 + step
        generator, rng = torch.Generator().manual_seed(number), random.Random(number)
        concepts = torch.multinomial(self.weights, self.batch_size, generator=generator)
        chosen = torch.tensor([self._choose(concept, rng) for concept in concepts.tolist()])
        composer = Composer(self.sprites, generator, min(0.8, 0.1 + step / EASY_STEPS))
        parts = [composer(part) for part in chosen.split(64)]
        texts = [self.captioner.write(concept, rng) for concept in concepts.tolist()]
        ids = torch.stack([tokenize(text) for text in texts])
        return Batch(
            torch.cat([part.pixels for part in parts]),
            torch.cat([part.on_object for part in parts]),
            torch.searchsorted(self.vocabulary, ids),
            ids.argmax(1),
            concepts,
        )

    def _choose(self, concept: int, rng: random.Random) -> int:
        others, openmoji = self.by_concept[concept]
        if openmoji and (not others or rng.random() < OPENMOJI_SHARE):
            return rng.choice(openmoji)
        return rng.choice(others)


def prefetched(stream: BatchStream, workers: int = 1) -> Iterator[Batch]:
    """The stream, composed ahead by one worker process; `workers` 0: by this process."""
    if workers == 0:
        return iter(stream)
    return iter(DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=6))
