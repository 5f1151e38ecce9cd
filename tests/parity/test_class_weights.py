"""ZSLP, CLAP, TaskRes against their formulations, picture by picture and class by class."""

import pytest
import torch

from tests.conftest import assert_close
from tests.tuners import make_tuner, shake
from trainers.clap import templates
from trainers.templates import sentences

pytestmark = pytest.mark.usefixtures("float64")

LABEL = torch.tensor([0, 3, 3, 5])
GRADIENT = 1e-10  # of the largest entry


def literal_logits(towers, images, weights):
    """exp(logit_scale) times the cosine of each picture with each class's weights."""
    rows = [
        torch.stack([towers.scale * (f @ w) / (f.norm() * w.norm()) for w in weights])
        for f in towers.image(images)
    ]
    return torch.stack(rows)


def literal_multipliers(towers, images, text):
    """The mean probability of each class among its own pictures; 0 without pictures."""
    found = torch.zeros(len(text))
    shares = literal_logits(towers, images, text).softmax(-1)
    for c in set(LABEL.tolist()):
        own = [share[c] for share, label in zip(shares, LABEL, strict=True) if label == c]
        found[c] = sum(own) / len(own)
    return found


def literal_loss(towers, images, weights, text, multipliers):
    """Cross-entropy, and the mean over classes of lambda_c |w_c - t_c|^2."""
    logits = literal_logits(towers, images, weights)
    own = [row.exp().sum().log() - row[c] for row, c in zip(logits, LABEL, strict=True)]
    distance = [
        m * sum((a - b) ** 2 for a, b in zip(w, t, strict=True))
        for m, w, t in zip(multipliers, weights, text, strict=True)
    ]
    return sum(own) / len(own), sum(distance) / len(distance)


@pytest.mark.parametrize("name", ["ZSLP", "CLAP"])
def test_losses_gradients_and_predictions(towers, class_names, name):
    ours, images = make_tuner(name, towers.clip, class_names).train(), towers.pictures(4)
    text = towers.class_text(class_names)
    assert_close(ours.learned.weight.detach(), text)
    multipliers = torch.zeros(len(text))
    if name == "CLAP":
        pictures = ours.encode_image(images).cls
        ours.set_multipliers([(pictures[:3], LABEL[:3]), (pictures[3:], LABEL[3:])])
        multipliers = literal_multipliers(towers, images, text)
        assert_close(ours.learned.multipliers, multipliers)
    shake(ours.learned)
    weights = ours.learned.weight.detach().clone().requires_grad_()
    expected = literal_loss(towers, images, weights, text, multipliers)
    found = ours.step(images, LABEL).losses
    assert list(found) == ["ce", "clap"][: 1 + (name == "CLAP")]
    for value, wanted in zip(found.values(), expected, strict=False):
        assert_close(value, wanted)
    sum(found.values()).backward()
    sum(expected).backward()
    difference = (ours.learned.weight.grad - weights.grad).abs().max()
    assert difference <= GRADIENT * weights.grad.abs().max()
    with torch.no_grad():
        assert_close(ours.eval()(images), literal_logits(towers, images, weights))


def test_imagenet_starts_at_the_mean_of_eight_sentences(towers, class_names):
    """Of features that are not of unit length, as published."""
    by_class = sentences(templates("ImageNet"), class_names)
    assert by_class[1][0] == "itap of a big cat."
    assert by_class[1][-1] == "a photo of a big cat."
    assert {len(of_one) for of_one in by_class} == {8}
    model = type(make_tuner("ZSLP", towers.clip, class_names))(towers.clip, class_names, by_class)
    expected = torch.stack([towers.text(of_one).mean(0) for of_one in by_class])
    assert_close(model.learned.text, expected)


@pytest.mark.parametrize("unit", [False, True])
def test_taskres_learns_a_share_of_what_is_added(towers, class_names, unit):
    ours = make_tuner("TaskRes", towers.clip, class_names, UNIT=unit).train()
    images = towers.pictures(4)
    text = towers.class_text(class_names)
    text = torch.stack([t / t.norm() for t in text]) if unit else text
    with torch.no_grad():
        assert_close(ours(images), literal_logits(towers, images, text))
    shake(ours.learned)
    added = ours.learned.weight.detach().clone().requires_grad_()
    weights = [t + 0.5 * x for t, x in zip(text, added, strict=True)]
    expected, _ = literal_loss(towers, images, weights, text, torch.zeros(len(text)))
    found = ours.step(images, LABEL).losses
    assert list(found) == ["ce"]
    assert_close(found["ce"], expected)
    found["ce"].backward()
    expected.backward()
    difference = (ours.learned.weight.grad - added.grad).abs().max()
    assert difference <= GRADIENT * added.grad.abs().max()
