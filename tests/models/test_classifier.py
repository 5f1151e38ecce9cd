"""CLIP as a classifier: equal to CLIP, text encoded once per evaluation."""

import pytest
import torch

from models.classifier import ZeroShotCLIP
from models.clip.openai import import_clip
from models.prompts import PromptLearner
from tests.conftest import assert_close
from trainers.coop import CoOpModel

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def model(clip_model, class_names):
    prompts = PromptLearner(class_names, clip_model.token_embedding, ctx_init="a photo of a")
    return CoOpModel(clip_model, prompts)


def clip_logits(clip_model, images, names):
    texts = import_clip().tokenize([f"a photo of a {n.replace('_', ' ')}." for n in names])
    with torch.no_grad():
        return clip_model(images, texts)[0]


def test_untrained_prompts_give_clips_logits(model, clip_model, images, class_names):
    expected = clip_logits(clip_model, images, class_names)
    assert_close(model(images), expected)


def test_zero_shot_gives_clips_logits(clip_model, images, class_names):
    sentences = [[f"a photo of a {n.replace('_', ' ')}."] for n in class_names]
    expected = clip_logits(clip_model, images, class_names)
    model = ZeroShotCLIP(clip_model, sentences)
    assert_close(model(images), expected)
    assert model.learned is None


def test_zero_shot_ensemble_is_the_mean_of_unit_features(clip_model):
    sentences = [["a dog.", "the dog."], ["a cat.", "the cat."]]
    model = ZeroShotCLIP(clip_model, sentences)
    for c in range(2):
        each = model.text.encode(sentences[c])
        mean = each.mean(0)
        assert_close(model.fixed[c], mean / mean.norm())


def count_text_passes(model):
    calls = []
    model.text.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_text_is_encoded_once_per_evaluation_and_anew_after_training(model, images):
    calls = count_text_passes(model)
    model.eval()
    for _ in range(3):
        model(images)
    assert len(calls) == 1
    model.train()
    model(images)
    model(images)
    assert len(calls) == 3
    model.eval()
    model(images)
    assert len(calls) == 4


def test_loaded_weights_are_not_hidden_by_kept_features(model, images):
    model.eval()
    before = model(images)
    model.learned.load_state_dict({"ctx": model.learned.ctx + 1})
    assert not torch.equal(model(images), before)


def test_only_prompts_get_gradients_and_towers_stay_in_evaluation(model, images):
    model.train()
    model(images).sum().backward()
    assert model.learned.ctx.grad.abs().sum() > 0
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained == ["learned.ctx"]
    assert not model.visual.training
    assert not model.text.training
