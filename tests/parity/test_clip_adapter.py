"""CLIP-Adapter against its formulation on CLIP's raw features, on the towers of both packages."""

import pytest
import torch

from lab.published.common import normalise
from models.fit import turn_in_class
from tests.conftest import assert_close, make_clip
from tests.tuners import make_tuner, shake
from trainers.clip_adapter import Adapters, losses

pytestmark = pytest.mark.usefixtures("float64")

LABEL = torch.tensor([0, 3, 3, 5])
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


def published_logits(towers, images, weights, fixed, ratio):
    """Picture by picture, on features of any length, as the published code has them."""
    rows = []
    for feature in towers.image(images):
        hidden = torch.stack([torch.dot(row, feature).clamp(min=0) for row in weights[0]])
        changed = torch.stack([torch.dot(row, hidden).clamp(min=0) for row in weights[1]])
        mixed = ratio * changed + (1 - ratio) * feature
        mixed = mixed / mixed.norm()
        rows.append(torch.stack([towers.scale * torch.dot(mixed, t) for t in fixed]))
    return torch.stack(rows)


@pytest.mark.parametrize("ratio", [0.2, 0.8])
def test_logits_and_three_sgd_steps(towers, ratio, class_names):
    images = towers.pictures(4)
    ours = make_tuner("CLIPAdapter", towers.clip, class_names, RATIO=ratio).train()
    shake(ours.learned)
    weights = [p.detach().clone().requires_grad_() for p in ours.learned.parameters()]
    fixed = normalise(towers.class_text(class_names))
    optimisers = [torch.optim.SGD(p, **SGD) for p in (ours.learned.parameters(), weights)]
    for _ in range(3):
        logits = published_logits(towers, images, weights, fixed, ratio)
        step = ours.step(images, LABEL)
        assert_close(step.logits, logits)
        expected = sum(row.exp().sum().log() - row[y] for row, y in zip(logits, LABEL, strict=True))
        for optimiser, loss in zip(optimisers, (step.losses["ce"], expected / 4), strict=True):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for found, weight in zip(ours.learned.parameters(), weights, strict=True):
        assert_close(found.detach(), weight.detach())


def test_ratio_0_is_zero_shot_clip(images, class_names):
    ours = make_tuner("CLIPAdapter", make_clip(), class_names, RATIO=0.0).eval()
    zero_shot = make_tuner("ZeroshotCLIP", make_clip(), class_names).eval()
    assert_close(ours(images), zero_shot(images))


def test_a_published_checkpoint_has_no_ratio(class_names):
    ours = make_tuner("CLIPAdapter", make_clip(), class_names, RATIO=0.4)
    state = {f"fc.{i}.weight": torch.rand_like(ours.learned.fc[i].weight) for i in (0, 2)}
    ours.learned.load_state_dict(state)
    assert ours.learned.ratio == 0.4
    assert torch.equal(ours.learned.fc[2].weight, state["fc.2.weight"])


def test_adapters_trained_at_once_are_those_trained_alone(class_names):
    start = make_tuner("CLIPAdapter", make_clip(), class_names).learned
    generator = torch.Generator().manual_seed(2)
    cls = torch.nn.functional.normalize(torch.randn(9, 32, generator=generator), dim=1)
    text = 10 * torch.nn.functional.normalize(torch.randn(3, 32, generator=generator), dim=1)
    label = torch.arange(9) % 3
    counts = turn_in_class(label) % 2 != torch.tensor([[0], [1], [0]])
    ratios = torch.tensor([0.2, 0.2, 0.6])
    together = Adapters(start, ratios)
    optimiser = torch.optim.SGD(together.parameters(), **SGD)
    for _ in range(3):
        optimiser.zero_grad()
        (losses(together, cls, label, text) * counts / counts.sum(1, keepdim=True)).sum().backward()
        optimiser.step()
    for number, (ratio, own) in enumerate(zip(ratios, counts, strict=True)):
        alone = make_tuner("CLIPAdapter", make_clip(), class_names).learned
        alone.ratio.fill_(ratio)
        optimiser = torch.optim.SGD(alone.parameters(), **SGD)
        for _ in range(3):
            optimiser.zero_grad()
            logits = alone(cls[own]) @ text.T
            torch.nn.functional.cross_entropy(logits, label[own]).backward()
            optimiser.step()
        assert_close(together.first[number].detach(), alone.fc[0].weight.T.detach())
        assert_close(together.second[number].detach(), alone.fc[2].weight.T.detach())
