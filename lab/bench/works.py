"""What is timed: training steps and evaluated batches, of both forms and of zero-shot CLIP.

The published code encodes all classes at once: for 1000 of them one training step of CoOp keeps
39 GB. Where memory is short, `sliced` takes 100 classes at a time. The operations are the same. The
time is that of a machine with the memory, or less: allocating it anew in every step costs time too.
"""

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from lab.published import Published, PublishedCoCoOp
from lab.published.common import normalise
from models.classifier import Images
from models.clip.text_tower import TextEncoder, free_memory
from models.clip.tokenizer import normalise_name
from trainers.templates import DEFAULT

Classifier = Callable[[Tensor], Tensor]
"""Pictures (B, 3, H, W) -> logits (B, C), without gradient."""
SGD = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}  # the rate is small: labels are random
SLICE = 100  # classes
NOTE = f"text by slices of {SLICE} classes"
BYTES_OF_A_CLASS = 39e6  # kept by a step of a text tower of 12 blocks of width 512
BLOCKS_TIMES_WIDTH = 12 * 512


def at_hand(model: nn.Module, images: Tensor) -> Images:
    """What the frozen image tower gives of pictures, as a training step takes it from a store."""
    found = model.tuner.encode_raw(images, model.tuner.step_patches)
    return found.cls if found.patches is None else found


def training_step(model: nn.Module, images: Images, labels: Tensor) -> Callable[[], None]:
    """One step of ours: forward, backward, optimiser, memory."""
    parameters = [p for p in model.learned.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(parameters, **SGD)

    def work() -> None:
        model.train()
        optimiser.zero_grad()
        step = model.step(images, labels)
        torch.stack(list(step.losses.values())).sum().backward()
        optimiser.step()
        model.update_memory(step)

    return work


def published_step(form: Published, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """One step of a published form, which writes its memory itself."""
    optimiser = torch.optim.SGD(form.learned.values(), **SGD)

    def work() -> None:
        form.training = True
        optimiser.zero_grad()
        form.loss(images, labels)[0].backward()
        optimiser.step()

    return work


def classifier(model: nn.Module) -> Classifier:
    """Ours in evaluation; where possible, text features are kept from the first batch on."""
    model.eval()

    @torch.no_grad()
    def classify(images: Tensor) -> Tensor:
        return model(images)

    return classify


def published_classifier(form: Published) -> Classifier:
    """A published form in evaluation: it encodes the text for every batch, in slices if long."""
    view = sliced(form) if len(form.ids) > SLICE else copy.copy(form)
    view.training = False
    return torch.no_grad()(view.logits)


def zero_shot(clip: nn.Module, class_names: Sequence[str]) -> Classifier:
    """Plain CLIP, its image tower in float32; the text features are computed here, once."""
    sentences = [DEFAULT.format(normalise_name(name)) for name in class_names]
    text = TextEncoder(clip).encode(sentences)

    @torch.no_grad()
    def classify(images: Tensor) -> Tensor:
        return clip.logit_scale.exp() * normalise(clip.visual(images)) @ text.t()

    return classify


# The published text, slice by slice


def fits(published: Published, copies: int, device: str) -> bool:
    """Whether a training step that encodes the text `copies` times fits into memory as a whole."""
    transformer = published.clip.transformer
    share = len(transformer.resblocks) * transformer.width / BLOCKS_TIMES_WIDTH
    needed = BYTES_OF_A_CLASS * share * len(published.ids) * copies
    return needed < 0.7 * free_memory(torch.device(device))


def sliced(published: Published) -> Published:
    """A view of a form whose text, and text gradient, is computed slice by slice.

    In training each slice has its own backward pass, from a gradient of 1 for every number. The
    learned tensors do not get the loss's gradient, but the cost is the same.
    """
    view = copy.copy(published)
    if not isinstance(published, PublishedCoCoOp):
        view.text = lambda: _joined((part.text() for part in _slices(published)), dim=0)
        return view

    def logits(images: Tensor) -> Tensor:  # the text depends on the image
        features = published.image(images)
        parts = list(_slices(published))
        for part in parts:
            part.image = lambda _: features
        return _joined((part.logits(images) for part in parts), dim=1)

    view.logits = logits
    return view


def _slices(published: Published) -> Iterator[Published]:
    """The same tuner for 100 classes at a time; the learned tensors are shared."""
    for first in range(0, len(published.ids), SLICE):
        part = copy.copy(published)
        part.ids = published.ids[first : first + SLICE]
        part.embedded = published.embedded[first : first + SLICE]
        yield part


def _joined(slices: Iterator[Tensor], dim: int) -> Tensor:
    """All slices, each after its own backward pass, as a new leaf."""
    found = []
    for part in slices:
        if torch.is_grad_enabled():
            part.sum().backward()
        found.append(part.detach())
    return torch.cat(found, dim=dim).requires_grad_(torch.is_grad_enabled())
