"""What holds for every adapter on zero-shot CLIP."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from models.adapters import Features
from models.classifier import ZeroShotCLIP
from runs.checkpoint import load_into
from tests.adapters import ADAPTERS, make_adapted, make_features
from tests.conftest import CLASS_NAMES, assert_close, make_clip

pytestmark = pytest.mark.usefixtures("float64")

NEW = ["ship", "tall_tree", "owl"]
SHOTS = (4, 5)


@pytest.fixture(params=ADAPTERS)
def name(request):
    return request.param


@pytest.fixture
def fitted(name):
    return fit(name)


def fit(name, shots=SHOTS, class_names=CLASS_NAMES):
    model = make_adapted(name, make_clip(), class_names, 60)
    features = make_features(model.fixed, shots)
    model.fill(features)
    model.fit(features)
    return model


@torch.no_grad()
def logits(model, images):
    return model.eval()(images)


@torch.no_grad()
def zero_shot(class_names, images):
    sentences = [[f"a photo of a {name.replace('_', ' ')}."] for name in class_names]
    return ZeroShotCLIP(make_clip(), sentences)(images)


def loaded(name, model, class_names, tmp_path):
    """The learned part of a model in one of other classes, which has no pictures itself."""
    other = make_adapted(name, make_clip(), class_names)
    load_into(other.learned, {"state_dict": model.learned.state_dict()}, tmp_path)
    return other


def test_before_it_is_filled_it_is_zero_shot_clip(name, images):
    model = make_adapted(name, make_clip(), CLASS_NAMES, 12)
    assert torch.equal(logits(model, images), zero_shot(CLASS_NAMES, images))


def test_it_says_something_of_classes_with_pictures(fitted, images):
    assert fitted.learned.weights[1] > 0
    assert not torch.allclose(logits(fitted, images), zero_shot(CLASS_NAMES, images))


def test_saved_and_loaded_it_gives_the_same_logits(name, fitted, images, tmp_path):
    other = loaded(name, fitted, CLASS_NAMES, tmp_path)
    assert torch.equal(logits(other, images), logits(fitted, images))


def test_other_order_other_names_the_same_logits(name, fitted, images, tmp_path):
    """A class list in another order, its names written otherwise, and a part of it."""
    order = [4, 1, 3]
    listed = [CLASS_NAMES[c].upper() if c == 4 else CLASS_NAMES[c] for c in order]
    other = make_adapted(name, make_clip(), [CLASS_NAMES[c] for c in order])
    load_into(other.learned, {"state_dict": fitted.learned.state_dict()}, tmp_path)
    other.class_names = listed
    found, expected = logits(other, images), logits(fitted, images)[:, order]
    assert_close(found.log_softmax(1), expected.log_softmax(1))


def test_only_what_is_listed_counts(name, fitted, images, tmp_path):
    """A class that is new to the run and others that have pictures."""
    mixed = loaded(name, fitted, [*CLASS_NAMES, *NEW], tmp_path)
    found, own = logits(mixed, images), logits(fitted, images)
    assert_close(found[:, : len(CLASS_NAMES)].log_softmax(1), own.log_softmax(1))


def test_classes_that_share_a_name_keep_what_they_learned(name):
    model = fit(name, (8,), ["dog", "Dog", *CLASS_NAMES[2:]])
    test = make_features(model.fixed, (20,), seed=1)
    with torch.no_grad():
        found = model.classify(test.plain, model.fixed).argmax(1)
    assert (found == test.label)[test.label < 2].double().mean() > 0.7


def test_weights_fit_held_out_pictures_better_than_zero_shot(name):
    model = fit(name, (8,))
    test = make_features(model.fixed, (20,), seed=1)
    with torch.no_grad():
        ours = cross_entropy(model.classify(test.plain, model.fixed), test.label)
        plain = cross_entropy(model.scale * test.plain @ model.fixed.T, test.label)
    assert ours < plain - 0.05


@pytest.mark.parametrize(("classes", "shots"), [(3, 4), (3, 16), (4, 1)])
def test_the_offset_makes_new_classes_beside_others_likelier(name, classes, shots):
    """With few classes, and with one shot, too."""
    whole = make_adapted(name, make_clip(), CLASS_NAMES)
    every = make_features(whole.fixed, (shots,), seed=2)
    rows = every.label < classes
    few = make_adapted(name, make_clip(), CLASS_NAMES[:classes], int(rows.sum()))
    own = Features(every.views[:, rows], every.plain[rows], every.label[rows])
    few.fill(own)
    few.fit(own)
    whole.learned.load_state_dict(few.learned.state_dict())
    test, losses = make_features(whole.fixed, (30,), seed=1), []
    for offset in (few.learned.new_offset.item(), 0.0):
        whole.learned.new_offset.fill_(offset)
        whole.clear_cache()
        losses.append(cross_entropy(whole.classify(test.plain, whole.fixed), test.label))
    assert losses[0] < losses[1]


@pytest.mark.parametrize("number", [1, 2])
def test_one_class_has_no_offset(name, number):
    model = fit(name, (8,), CLASS_NAMES[:number])
    assert torch.isfinite(model.learned.new_offset)
    if number == 1:
        assert model.learned.new_offset == 0


def test_one_shot_gives_the_part_half_a_spread(name):
    model = fit(name, (1,))
    features = make_features(model.fixed, (1,))
    learned, every = model.learned, torch.arange(len(CLASS_NAMES))
    part = learned.part(features.plain, learned.table(model.fixed, every))
    spread = (part - part.mean(1, keepdim=True)).square().mean().sqrt()
    assert_close(learned.weights, torch.stack([torch.tensor(1.0), 0.5 / spread]))


def test_a_class_without_pictures_counts_as_new(name, images):
    model = make_adapted(name, make_clip(), CLASS_NAMES, 60)
    features = make_features(model.fixed[:-1], SHOTS)
    model.fill(features)
    model.fit(features)
    side = model.learned.side(model.fixed, model.class_names)
    assert (side.part[:-1] == model.learned.weights[1]).all()
    assert side.part[-1] == model.learned.new_weights[1]
    assert torch.isfinite(logits(model, images)).all()
