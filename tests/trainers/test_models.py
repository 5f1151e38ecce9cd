"""What the tuners' models promise beyond parity (tests/parity)."""

import pytest
import torch

from models.clip.blocks import unit
from tests.conftest import assert_close, make_clip
from tests.tuners import TUNERS, make_tuner, shake

pytestmark = pytest.mark.usefixtures("float64")

LABEL = torch.tensor([0, 3, 3, 5])


def test_cocoop_encodes_a_batch_as_one_batch(clip_model, class_names, images):
    model = make_tuner("CoCoOp", clip_model, class_names).eval()
    sizes = []
    model.text.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[:2])))
    model(images)
    assert sizes == [(len(images), len(class_names))]


def test_cocoops_images_do_not_see_each_other(clip_model, class_names, images):
    model = make_tuner("CoCoOp", clip_model, class_names).eval()
    shake(model.learned)
    each = torch.cat([model(image[None]) for image in images])
    assert_close(model(images), each)


@pytest.mark.parametrize("name", ["MaPLe", "IVLP", "VPT", "PromptSRC", "PromptKD"])
def test_prompts_are_never_among_the_patches(clip_model, class_names, images, name):
    model = make_tuner(name, clip_model, class_names).eval()
    seen = model.encode_image(images, "value")
    assert seen.patches.shape[:2] == seen.cls_attention.shape == (4, 16)
    assert_close(seen.cls, model.encode_image(images).cls)


@pytest.mark.parametrize("name", sorted({*TUNERS} - {"TextRefiner"}))
def test_only_what_is_learned_gets_gradients(clip_model, class_names, images, name):
    model = make_tuner(name, clip_model, class_names).train()
    step = model.step(images, LABEL)
    torch.stack(list(step.losses.values())).sum().backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == key.startswith("learned."), key


def test_maple_learns_two_of_four_words(clip_model, class_names):
    model = make_tuner("MaPLe", clip_model, class_names)
    coop = make_tuner("CoOp", clip_model, class_names)
    assert model.learned.ctx.shape == (2, 64)
    assert torch.equal(model.learned.whole(), coop.learned.whole())


def test_more_learned_words_than_there_are_is_refused(clip_model, class_names):
    with pytest.raises(ValueError, match="3 context vectors cannot start from the 2 tokens of"):
        make_tuner("MaPLe", clip_model, class_names, N_CTX=3, CTX_INIT="a photo")


def test_a_long_context_starts_at_random(clip_model, class_names):
    model = make_tuner("MaPLe", clip_model, class_names, N_CTX=5)
    assert model.learned.ctx.shape == (5, 64)
    assert model.learned.ctx.std() < 0.03


@pytest.mark.parametrize(
    ("name", "key", "most"),
    [
        ("MaPLe", "PROMPT_DEPTH", 3),
        ("IVLP", "PROMPT_DEPTH_VISION", 3),
        ("IVLP", "PROMPT_DEPTH_TEXT", 2),
        ("VPT", "PROMPT_DEPTH_VISION", 3),
        ("PromptSRC", "PROMPT_DEPTH_VISION", 3),
        ("PromptSRC", "PROMPT_DEPTH_TEXT", 2),
    ],
)
def test_prompts_for_more_blocks_than_there_are_is_refused(
    clip_model, class_names, name, key, most
):
    with pytest.raises(ValueError, match=f"{key} must not be above {most} .* got 9"):
        make_tuner(name, clip_model, class_names, **{key: 9})


@pytest.mark.parametrize("name", ["IVLP", "PromptSRC"])
def test_the_image_tower_stays_as_it_is_without_visual_prompts(
    clip_model, class_names, images, name
):
    none = {"PROMPT_DEPTH_VISION": 0, "N_CTX_VISION": 0}
    model = make_tuner(name, clip_model, class_names, **none)
    assert_close(model.encode_image(images).cls, unit(clip_model.encode_image(images)))


def test_vpt_reads_other_words(clip_model, class_names, images):
    model = make_tuner("VPT", clip_model, class_names, CTX_INIT="a drawing of the")
    sentences = [f"a drawing of the {name.replace('_', ' ')}." for name in class_names]
    assert_close(model.encode_text(), model.text.encode(sentences))


@pytest.mark.parametrize("name", ["MaPLe", "IVLP", "VPT", "PromptSRC", "TextRefiner"])
def test_a_resnet_is_refused(resnet_clip, class_names, name):
    with pytest.raises(ValueError, match="a ResNet backbone has none; choose a ViT"):
        make_tuner(name, resnet_clip, class_names)


def test_cocoop_runs_on_a_resnet(resnet_clip, class_names, images):
    assert make_tuner("CoCoOp", resnet_clip, class_names)(images).shape == (4, 6)


# PromptKD


def test_a_student_evaluates_the_rows_it_is_given(class_names, images):
    every = make_tuner("PromptKD", make_clip(), class_names).eval()
    some = make_tuner("PromptKD", make_clip(), class_names, rows=torch.tensor([4, 1])).eval()
    assert_close(some(images), every(images)[:, [4, 1]])
    assert some.train()(images).shape == (4, 6)


def test_patches_leave_the_statistics_of_the_projector_alone(class_names, images):
    model = make_tuner("PromptKD", make_clip(), class_names).train()
    norm = model.learned.projector.norm
    model.encode_image(images)
    alone = norm.running_mean.clone()
    norm.reset_running_stats()
    model.encode_image(images, "value")
    assert torch.equal(norm.running_mean, alone)


def test_the_teacher_is_frozen_and_its_text_is_encoded_once(class_names, images):
    model = make_tuner("PromptKD", make_clip(), class_names).train()
    calls = []
    model.teacher.text.register_forward_hook(lambda *_: calls.append(1))
    for mode in (True, True, False, True):
        model.train(mode)
        model.step(images, LABEL)
    assert len(calls) == 1
    assert not any(p.requires_grad for p in model.teacher.parameters())
    assert not any(name.startswith("teacher") for name in model.learned.state_dict())


# TextRefiner


def test_evaluation_never_writes_the_memory(clip_model, class_names, images):
    model = make_tuner("TextRefiner", clip_model, class_names).eval()
    before = model.learned.memory.slots.clone()
    model(images)
    assert torch.equal(model.learned.memory.slots, before)


@pytest.mark.parametrize("setting", ["BALANCE", "DISTILL"])
def test_zero_switches_a_term_off(clip_model, class_names, images, setting):
    model = make_tuner("TextRefiner", clip_model, class_names, **{setting: 0.0}).train()
    assert len(model.step(images, LABEL).losses) == 2
