"""Learned class weights: what a run of other classes makes of them."""

import pytest
import torch

from models.class_weights import ClassWeightsModel
from models.classifier import ZeroShotCLIP
from tests.conftest import make_clip
from tests.tuners import make_tuner, shake

METHODS = ["ZSLP", "CLAP", "TaskRes", "LPPlusPlus"]
NEW = ["a zebra", "Fern"]


def sentences(names):
    return [[f"a photo of a {name.replace('_', ' ')}."] for name in names]


@pytest.fixture(params=METHODS)
def trained(request, class_names):
    model = make_tuner(request.param, make_clip(), class_names).eval()
    shake(model.learned, size=1.0)
    return request.param, model


def loaded(trained, names):
    """A model of other classes, with the weights of the trained one."""
    name, model = trained
    other = make_tuner(name, make_clip(), names).eval()
    other.learned.load_state_dict(model.learned.state_dict())
    return other


@torch.no_grad()
def test_saved_and_loaded_it_gives_the_same_logits(trained, class_names, images):
    again = loaded(trained, class_names)
    assert torch.equal(again(images), trained[1](images))
    saved, there = trained[1].learned.state_dict(), again.learned.state_dict()
    assert saved.pop("_extra_state") == there.pop("_extra_state")
    assert all(torch.equal(saved[key], there[key]) for key in saved)


@torch.no_grad()
def test_new_classes_alone_are_zero_shot_clip_to_the_bit(trained, images):
    zero_shot = ZeroShotCLIP(make_clip(), sentences(NEW)).eval()
    assert torch.equal(loaded(trained, NEW)(images), zero_shot(images))


@torch.no_grad()
def test_in_a_mixed_list_each_class_has_its_own(trained, class_names, images):
    names = [NEW[0], class_names[3].upper(), NEW[1], class_names[1].replace("_", " ")]
    found, known = loaded(trained, names)(images), trained[1](images)
    new = ZeroShotCLIP(make_clip(), sentences(NEW)).eval()(images)
    expected = torch.stack([new[:, 0], known[:, 3], new[:, 1], known[:, 1]], dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    plain = ZeroShotCLIP(make_clip(), sentences(names)).eval()(images)
    assert not torch.allclose(found[:, 1], plain[:, 1])


@torch.no_grad()
def test_the_order_of_the_classes_is_that_of_the_logits(trained, class_names, images):
    order = [4, 2, 0, 5, 1, 3]
    found = loaded(trained, [class_names[i] for i in order])(images)
    torch.testing.assert_close(found, trained[1](images)[:, order], rtol=1e-6, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("unit_length", [True, False])
def test_an_untrained_model_is_zero_shot_clip(class_names, images, unit_length):
    own = {"class_names": class_names, "class_sentences": sentences(class_names)}
    model = ClassWeightsModel(make_clip(), **own, unit_length=unit_length).eval()
    lengths = model.learned.text.norm(dim=-1)
    assert torch.allclose(lengths, torch.ones(6)) == unit_length
    zero_shot = ZeroShotCLIP(make_clip(), sentences(class_names)).eval()
    torch.testing.assert_close(model(images), zero_shot(images), rtol=1e-5, atol=1e-5)
