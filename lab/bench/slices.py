"""The published forms with many classes: their text 100 classes at a time, the same arithmetic.

The published code encodes all classes at once: for 1000 of them one training step of CoOp keeps
39 GB. Class by class the operations are the same; the time is that of a machine with the memory, or
less: memory that is asked for anew in every step has its price, too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from lab.bench.memory import available_bytes
from lab.published import Published, PublishedCoCoOp

SLICE = 100  # classes
BYTES_OF_A_CLASS = 39e6  # that a step of ViT-B/16's text tower keeps, 12 blocks of width 512
OF = 12 * 512
NOTE = f"text by slices of {SLICE} classes"


def fits(published: Published, copies: int, device: str) -> bool:
    """Whether a training step fits into memory with all classes at once.

    Args:
        published: the form.
        copies: times that the text is encoded: once, or for every image.
        device: where.
    """
    transformer = published.clip.transformer
    share = len(transformer.resblocks) * transformer.width / OF
    needed = BYTES_OF_A_CLASS * share * len(published.ids) * copies
    return needed < 0.7 * available_bytes(device)


def parts(published: Published) -> Iterator[Published]:
    """The same tuner for 100 classes at a time; what is learned is shared."""
    for first in range(0, len(published.ids), SLICE):
        part = copy.copy(published)
        part.ids = published.ids[first : first + SLICE]
        part.embedded = published.embedded[first : first + SLICE]
        yield part


def sliced(published: Published) -> Published:
    """A view of a form whose text, and text gradient, is computed slice by slice.

    In training each slice goes back with a gradient of its own, here 1 for every number: what
    reaches the learned tensors is not the loss's gradient, but it costs as much.
    """
    view = copy.copy(published)
    if isinstance(published, PublishedCoCoOp):  # its text depends on the image
        view.logits = lambda images: _logits(published, images)
    else:
        view.text = lambda: _text(published)
    return view


def _text(published: Published) -> Tensor:
    return _leaf([_go_back(part.text()) for part in parts(published)], dim=0)


def _logits(published: Published, images: Tensor) -> Tensor:
    features = published.image(images)
    found = []
    for part in parts(published):
        part.image = lambda _: features
        found.append(_go_back(part.logits(images)))
    return _leaf(found, dim=1)


def _go_back(part: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        part.sum().backward()
    return part.detach()


def _leaf(found: list[Tensor], dim: int) -> Tensor:
    return torch.cat(found, dim=dim).requires_grad_(torch.is_grad_enabled())
