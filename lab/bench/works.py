"""What is timed: training steps and evaluated batches, of both forms and of zero-shot CLIP."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lab.bench.slices import SLICE, sliced
from lab.published.common import Published, normalise
from models.clip.text_tower import TextEncoder
from models.clip.tokenizer import normalise_name
from trainers.templates import DEFAULT

Classifier = Callable[[Tensor], Tensor]
"""Pictures (B, 3, H, W) -> logits (B, C), without gradient."""
SGD = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}  # the rate is small: labels are random


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
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
    """Ours in evaluation; text features are kept from the first batch where they can be."""
    model.eval()

    @torch.no_grad()
    def classify(images: Tensor) -> Tensor:
        return model(images)

    return classify


def published_classifier(form: Published) -> Classifier:
    """A published form in evaluation: text anew for every batch, of many classes in slices."""
    view = sliced(form) if len(form.ids) > SLICE else copy.copy(form)
    view.training = False

    @torch.no_grad()
    def classify(images: Tensor) -> Tensor:
        return view.logits(images)

    return classify


def zero_shot(clip: nn.Module, class_names: Sequence[str]) -> Classifier:
    """Plain CLIP, its own image tower in float32; text features are there before."""
    sentences = [DEFAULT.format(normalise_name(name)) for name in class_names]
    text = TextEncoder(clip).encode(sentences)

    @torch.no_grad()
    def classify(images: Tensor) -> Tensor:
        return clip.logit_scale.exp() * normalise(clip.visual(images)) @ text.t()

    return classify
