"""KgCoOp against its formulation, written out class by class on plain `clip` modules."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from lab.published import PublishedCoOp
from models.clip.openai import import_clip
from tests.conftest import assert_close, make_clip
from tests.tuners import WORDS, make_tuner, shake

pytestmark = pytest.mark.usefixtures("float64")

LABEL = torch.tensor([0, 3, 3, 5])
WEIGHT = 3.0


@pytest.fixture
def pair(class_names):
    ours = make_tuner("KgCoOp", make_clip(), class_names, W=WEIGHT).train()
    shake(ours.learned)
    clip = make_clip()
    literal = PublishedCoOp(clip, class_names, dict(ours.learned.named_parameters()), prefix=WORDS)
    sentences = [f"a photo of a {name.replace('_', ' ')}." for name in class_names]
    with torch.no_grad():
        fixed = clip.encode_text(import_clip().tokenize(sentences))
    return ours, literal, fixed


def test_loss_is_cross_entropy_and_the_distance_to_a_sentence(pair, images):
    ours, literal, fixed = pair
    text = literal.text()
    cosines = [
        sum(a * b for a, b in zip(t, f, strict=True)) / (t.norm() * f.norm())
        for t, f in zip(text, fixed, strict=True)
    ]
    distance = 1 - sum(cosines) / len(cosines)
    expected = {"ce": cross_entropy(literal.logits(images), LABEL), "kg": WEIGHT * distance}
    found = ours.step(images, LABEL).losses
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value)
    sum(found.values()).backward()
    sum(expected.values()).backward()
    gradient = literal.learned["ctx"].grad
    difference = (ours.learned.ctx.grad - gradient).abs().max()
    assert difference <= 1e-10 * gradient.abs().max()


def test_predictions_are_those_of_coop(pair, images):
    ours, literal, _ = pair
    with torch.no_grad():
        assert_close(ours.eval()(images), literal.logits(images))


def test_w_0_is_coop(images, class_names):
    ours = make_tuner("KgCoOp", make_clip(), class_names, W=0.0).train()
    coop = make_tuner("CoOp", make_clip(), class_names).train()
    found = ours.step(images, LABEL).losses
    assert found["kg"] == 0
    assert torch.equal(found["ce"], coop.step(images, LABEL).losses["ce"])
