"""Tuners against their published formulations in lab/published: plain `clip` modules at 77
positions, CoCoOp image by image, deep prompts layer by layer. A tuner without one has a test of
parity of its own beside this file.
"""

import pytest
import torch

from lab import published
from runs.average import gaussian_weights
from tests.conftest import assert_close, make_clip
from tests.tuners import TUNERS, WORDS, make_tuner, shake
from trainers.published import published_name, published_state
from trainers.templates import DIVERSE

pytestmark = pytest.mark.usefixtures("float64")

LABEL = torch.tensor([0, 3, 3, 5])
# Gradients are compared to the largest entry of their tensor.
GRADIENT = 1e-10
BEFORE_NORM = "conv1.0.bias"  # a BatchNorm takes it away again: its gradient is rounding alone


def make_literal(name, ours, clip, class_names):
    learned = published_state(dict(ours.learned.named_parameters()))
    kind = getattr(published, f"Published{name}")
    if name == "PromptSRC":
        return kind(clip, class_names, learned, templates=DIVERSE)
    if name == "PromptKD":
        teacher = make_clip(seed=5, vision_width=64, joint=48)
        teacher = make_literal("PromptSRC", ours.teacher, teacher, class_names)
        return kind(clip, class_names, learned, teacher=teacher, temperature=2.0, kd_weight=1000.0)
    if name == "TextRefiner":
        slots = ours.learned.memory.slots.clone()
        return kind(clip, class_names, learned, prefix=WORDS, memory_item=slots)
    return kind(clip, class_names, learned, prefix=WORDS)


@pytest.fixture(params=[name for name in TUNERS if hasattr(published, f"Published{name}")])
def pair(request, class_names):
    ours = make_tuner(request.param, make_clip(), class_names).train()
    shake(ours.learned)
    return ours, make_literal(request.param, ours, make_clip(), class_names)


def test_logits(pair, images):
    ours, literal = pair
    literal.training = False
    with torch.no_grad():
        expected = literal.logits(images)
        assert_close(ours.eval()(images), expected)


def test_losses_and_gradients(pair, images):
    ours, literal = pair
    step = ours.step(images, LABEL)
    total, parts = literal.loss(images, LABEL)
    found = torch.stack(list(step.losses.values()))
    assert_close(found, torch.stack(list(parts.values())))
    found.sum().backward()
    total.backward()
    found = {published_name(n): p.grad for n, p in ours.learned.named_parameters()}
    expected = {n: p.grad.reshape(found[n].shape) for n, p in literal.learned.items()}
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        difference = (found[name] - gradient).abs().max()
        of = largest if name.endswith(BEFORE_NORM) else gradient.abs().max()
        assert difference <= GRADIENT * of, name


@pytest.mark.parametrize(("mean", "std", "epochs"), [(15.0, 1.0, 20), (30.0, 30.0, 50)])
def test_promptsrc_weights_epochs_as_published(mean, std, epochs):
    found = gaussian_weights(epochs, mean, std).tolist()
    assert found == pytest.approx(published.PublishedPromptSRC.gpa_weights(mean, std, epochs))


def test_three_sgd_steps(pair, images):
    ours, literal = pair
    settings = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
    optimiser = torch.optim.SGD(ours.learned.parameters(), **settings)
    reference = torch.optim.SGD(literal.learned.values(), **settings)
    for _ in range(3):
        optimiser.zero_grad()
        step = ours.step(images, LABEL)
        torch.stack(list(step.losses.values())).sum().backward()
        optimiser.step()
        ours.update_memory(step)
        reference.zero_grad()
        literal.loss(images, LABEL)[0].backward()
        reference.step()
    found = published_state(dict(ours.learned.named_parameters()))
    assert found.keys() == literal.learned.keys()
    for name, expected in literal.learned.items():
        assert_close(found[name], expected)
    if hasattr(literal, "memory_item"):
        slots = ours.learned.memory.slots
        assert_close(slots, literal.memory_item)
    if hasattr(literal, "running_mean"):
        norms = [m for m in ours.learned.modules() if isinstance(m, torch.nn.BatchNorm1d)]
        assert_close(norms[0].running_mean, literal.running_mean)
        assert_close(norms[0].running_var, literal.running_var)
