"""LP++ against its formulation: torch's own SGD and gradients, classes one after the other."""

from itertools import pairwise

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.conftest import assert_close
from tests.tuners import TRAINER, make_tuner
from trainers.lp_plus_plus import descend

pytestmark = pytest.mark.usefixtures("float64")

LABEL = torch.tensor([0, 3, 3, 5, 1, 2, 4, 0])
CLASSES = 6


def unit_rows(rows):
    return torch.stack([row / row.norm() for row in rows])


class Literal:
    """w, alpha and b after some steps; alpha's gradients add up, as they are never cleared."""

    def __init__(self, f, text, init=250.0):
        self.f, self.text = f, text
        own = [f[c == LABEL] for c in range(CLASSES)]
        self.w = torch.stack([rows.sum(0) for rows in own]).requires_grad_()
        self.b = torch.zeros(CLASSES, requires_grad=True)
        pairs = zip(own, text, strict=True)
        cosines = [sum(row @ t for row in rows) / len(rows) for rows, t in pairs]
        self.alpha = (init * sum(cosines) / CLASSES * torch.ones(CLASSES)).requires_grad_()
        largest = torch.linalg.matrix_norm(f, 2) ** 2
        self.sgd = torch.optim.SGD([self.w, self.b], float(4 * len(f) / largest), momentum=0.9)
        self.rate = len(f) / (4 * max(sum((row @ t) ** 2 for row in f) for t in text))

    def logits(self, f):
        by_class = zip(self.w, self.alpha, self.text, self.b, strict=True)
        return torch.stack([f @ (w + a * t) + b for w, a, t, b in by_class], dim=1)

    def step(self, number):
        self.sgd.zero_grad()
        cross_entropy(self.logits(self.f), LABEL).backward()
        self.sgd.step()
        if number % 10 == 0:
            with torch.no_grad():
                self.alpha -= self.rate * self.alpha.grad


@pytest.mark.parametrize("select", ["last", "val"])
def test_the_probe_and_its_logits(towers, class_names, select):
    ours, steps = make_tuner("LPPlusPlus", towers.clip, class_names).eval(), 25
    pictures, others = towers.pictures(len(LABEL)), towers.pictures(30, seed=2)
    text = unit_rows(towers.class_text(class_names))
    f, validation = unit_rows(towers.image(pictures)), unit_rows(towers.image(others))
    truth = torch.arange(30) % CLASSES
    literal, most, expected, kept = Literal(f, text), -1, None, 0
    for number in range(1, steps + 1):
        literal.step(number)
        with torch.no_grad():
            hits = (literal.logits(validation).argmax(1) == truth).sum()
            if select == "last" or hits >= most:
                most, kept, expected = hits, number, literal.logits(validation)
                state = [part.detach().clone() for part in (literal.w, literal.alpha, literal.b)]
    settings = TRAINER["LPPlusPlus"].settings_class(STEPS=steps, SELECT=select)
    chosen = (validation, truth) if select == "val" else None
    assert ours.fit(ours.encode_image(pictures).cls, LABEL, settings, chosen) == kept
    for name, value in zip(("weight", "alpha", "bias"), state, strict=True):
        assert_close(getattr(ours.learned, name).detach(), value)
    with torch.no_grad():
        assert_close(ours(others), expected)


def test_before_it_is_fitted_it_is_zero_shot_clip(towers, class_names):
    ours, pictures = make_tuner("LPPlusPlus", towers.clip, class_names).eval(), towers.pictures(4)
    text = unit_rows(towers.class_text(class_names))
    with torch.no_grad():
        expected = towers.scale * unit_rows(towers.image(pictures)) @ text.T
        assert_close(ours(pictures), expected)


def test_the_loss_falls_with_each_step_of_the_weights_alone(towers, class_names):
    """The step size is a bound of the curvature: without momentum the loss never rises."""
    f = unit_rows(towers.image(towers.pictures(len(LABEL))))
    text = unit_rows(towers.text(class_names))
    settings = TRAINER["LPPlusPlus"].settings_class(STEPS=40, EVERY=41, MOMENTUM=0.0)
    probes = descend(f, LABEL, text, settings)
    losses = [cross_entropy(probe.logits(f, text), LABEL).item() for probe in probes]
    assert all(later <= earlier for earlier, later in pairwise(losses))
