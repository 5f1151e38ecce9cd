"""Samplers: the order in which a loader reads its pictures."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from dassl.data.datasets.base_dataset import Datum, group_by
from dassl.utils import check_availability
from torch.utils.data import RandomSampler, Sampler, SequentialSampler

__all__ = [
    "RandomClassSampler", "RandomDomainSampler", "RandomSampler", "SeqDomainSampler",
    "SequentialSampler", "build_sampler",
]

SAMPLERS = (
    "RandomSampler", "SequentialSampler", "RandomDomainSampler", "SeqDomainSampler",
    "RandomClassSampler",
)


class _OrderSampler(Sampler[int]):
    """A sampler whose passes may differ in length.

    ``len`` is that of the pass that has begun. Before the first pass it is that of a trial, which
    draws as a pass does, as upstream.
    """

    def _order(self) -> list[int]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        order = self._order()
        self.length = len(order)
        return iter(order)

    def __len__(self) -> int:
        return self.length


class RandomDomainSampler(_OrderSampler):
    """Batches with equally many random pictures of ``n_domain`` random domains (not positive: all).

    An epoch ends when one domain has too few pictures left. Raises ValueError if the batch cannot
    be divided, or a domain cannot fill its share of one.
    """

    def __init__(self, data_source: Sequence[Datum], batch_size: int, n_domain: int = 0) -> None:
        self.groups = group_by(range(len(data_source)), lambda i: data_source[i].domain)
        self.n_domain = n_domain if n_domain > 0 else len(self.groups)
        if self.n_domain > len(self.groups) or batch_size % self.n_domain != 0:
            raise ValueError(
                f"BATCH_SIZE {batch_size} must be a multiple of the {self.n_domain} domains in a "
                f"batch (N_DOMAIN), of which there are {len(self.groups)}"
            )
        self.share = batch_size // self.n_domain
        smallest = min(len(group) for group in self.groups.values())
        if smallest < self.share:
            raise ValueError(
                f"each batch takes {self.share} pictures of a domain, but one has only {smallest}; "
                "use a smaller BATCH_SIZE"
            )
        self.length = len(self._order())

    def _choose_domains(self) -> list[int]:
        return random.sample(list(self.groups), self.n_domain)

    def _order(self) -> list[int]:
        left = {domain: list(group) for domain, group in self.groups.items()}
        order: list[int] = []
        while all(len(group) >= self.share for group in left.values()):
            for domain in self._choose_domains():
                chosen = random.sample(left[domain], self.share)
                order.extend(chosen)
                taken = set(chosen)
                left[domain] = [index for index in left[domain] if index not in taken]
        return order


class SeqDomainSampler(RandomDomainSampler):
    """Batches with equally many pictures, drawn at random, of all domains in order."""

    def __init__(self, data_source: Sequence[Datum], batch_size: int) -> None:
        super().__init__(data_source, batch_size)

    def _choose_domains(self) -> list[int]:
        return sorted(self.groups)


class RandomClassSampler(_OrderSampler):
    """Batches of several classes with ``n_ins`` pictures each; a class that has fewer repeats some.

    Raises ValueError if a batch holds no class, or more classes than there are.
    """

    def __init__(self, data_source: Sequence[Datum], batch_size: int, n_ins: int) -> None:
        self.groups = group_by(range(len(data_source)), lambda i: data_source[i].label)
        self.n_ins = n_ins
        self.n_classes = batch_size // n_ins
        if not 1 <= self.n_classes <= len(self.groups):
            raise ValueError(
                f"BATCH_SIZE {batch_size} with N_INS {n_ins} asks for {self.n_classes} classes in "
                f"a batch; it must lie in 1..{len(self.groups)}"
            )
        self.length = len(self._order())

    def _portions(self, group: list[int]) -> list[list[int]]:
        n = self.n_ins
        indices = list(group)
        if len(group) < n:  # NumPy's global generator, as upstream
            indices = np.random.choice(group, size=n).tolist()  # noqa: NPY002
        random.shuffle(indices)
        return [indices[start : start + n] for start in range(0, len(indices) - n + 1, n)]

    def _order(self) -> list[int]:
        portions = {label: self._portions(group) for label, group in self.groups.items()}
        labels, order = list(portions), []
        while len(labels) >= self.n_classes:
            for label in random.sample(labels, self.n_classes):
                order += portions[label].pop(0)
                if not portions[label]:
                    labels.remove(label)
        return order


def build_sampler(
    sampler_type: str, cfg: Any = None, data_source: Sequence[Datum] = (), batch_size: int = 32,
    n_domain: int = 0, n_ins: int = 16,
) -> Sampler[int]:
    """Build one of SAMPLERS; ``cfg`` is not used. RandomSampler draws from torch's generator.

    ``n_domain``, domains per batch, is for RandomDomainSampler; ``n_ins``, pictures of one class in
    a batch, for RandomClassSampler. Raises ValueError if the name is unknown.
    """
    check_availability(sampler_type, SAMPLERS, "sampler (DATALOADER...SAMPLER)")
    if sampler_type == "RandomSampler":
        return RandomSampler(data_source)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(data_source)
    if sampler_type == "RandomDomainSampler":
        return RandomDomainSampler(data_source, batch_size, n_domain)
    if sampler_type == "SeqDomainSampler":
        return SeqDomainSampler(data_source, batch_size)
    return RandomClassSampler(data_source, batch_size, n_ins)
