"""TCP against its formulation, class by class, on the towers of both packages."""

import pytest
import torch

from lab.published.common import normalise
from models.clip.text_tower import TextEncoder
from tests.conftest import assert_close, make_clip
from tests.tuners import make_tuner, shake

pytestmark = pytest.mark.usefixtures("float64")

LABEL = torch.tensor([0, 3, 3, 5])
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
DEPTH = {2: 1, 3: 2}  # of towers with 2 and 3 blocks


def published_loss(towers, images, learned, class_names, fixed):
    """Cross-entropy, plus 8 times the distance to the fixed features."""
    first, second = (learned[f"meta_net.linear{i}.weight"] for i in (1, 2))
    rows = []
    for feature in fixed:
        hidden = first @ feature + learned["meta_net.linear1.bias"]
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        rows.append(second @ hidden + learned["meta_net.linear2.bias"])
    own = torch.stack(rows).reshape(len(fixed), 4, -1)
    sentences = [f"X X X X {name.replace('_', ' ')}." for name in class_names]
    depth = DEPTH[len(towers.own.transformer.resblocks)]
    text = normalise(towers.prompted(sentences, learned["ctx"], depth, own))
    logits = towers.scale * normalise(towers.image(images)) @ text.T
    cosines = [torch.dot(t, f) for t, f in zip(text, fixed, strict=True)]
    loss = sum(row.exp().sum().log() - row[y] for row, y in zip(logits, LABEL, strict=True))
    return logits, loss / len(LABEL) + 8 * (1 - sum(cosines) / len(cosines))


def test_logits_and_three_sgd_steps(towers, class_names):
    ours, images = make_tuner("TCP", towers.clip, class_names).train(), towers.pictures(4)
    shake(ours.learned)
    learned = {n: p.detach().clone().requires_grad_() for n, p in ours.learned.named_parameters()}
    fixed = normalise(towers.class_text(class_names))
    optimisers = [torch.optim.SGD(p, **SGD) for p in (ours.learned.parameters(), learned.values())]
    for _ in range(3):
        logits, expected = published_loss(towers, images, learned, class_names, fixed)
        step = ours.step(images, LABEL)
        assert_close(step.logits, logits)
        for optimiser, loss in zip(optimisers, (sum(step.losses.values()), expected), strict=True):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for name, parameter in ours.learned.named_parameters():
        assert_close(parameter.detach(), learned[name].detach())


def test_classes_in_parts_are_those_at_once(class_names, monkeypatch):
    ours = make_tuner("TCP", make_clip(), class_names).train()
    shake(ours.learned)
    at_once = ours.encode_text()
    monkeypatch.setattr(TextEncoder, "prompts_at_a_time", lambda *_: 2)
    assert_close(ours.encode_text(), at_once)
