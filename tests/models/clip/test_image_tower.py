"""The image tower with a seam equals CLIP's when the seam is unused."""

import pytest
import torch
import torch.nn.functional as F

from models.clip.image_tower import ResNetEncoder, VisualEncoder, build_visual_encoder
from tests.conftest import assert_close

pytestmark = pytest.mark.usefixtures("float64")


def test_class_feature_equals_clip(clip_model, images):
    expected = clip_model.encode_image(images)
    found = VisualEncoder(clip_model.visual)(images)
    assert_close(found.cls, expected)
    assert found.patches is None


def test_class_feature_has_the_same_bits_with_patches(clip_model, images):
    encoder = VisualEncoder(clip_model.visual)
    alone = encoder(images).cls
    for path in ("value", "raw"):
        assert torch.equal(encoder(images, patch_path=path).cls, alone)


def test_patches_are_the_projected_tokens_without_the_class_token(clip_model, images):
    visual = clip_model.visual
    last_input = []
    hook = visual.transformer.resblocks[-1].register_forward_pre_hook(
        lambda _, args: last_input.append(args[0])
    )
    out = []
    hook2 = visual.transformer.register_forward_hook(lambda _m, _i, o: out.append(o))
    clip_model.encode_image(images)
    hook.remove()
    hook2.remove()
    raw = visual.ln_post(out[0][1:].transpose(0, 1)) @ visual.proj
    found = VisualEncoder(visual)(images, patch_path="raw")
    assert_close(found.patches, raw)

    block = visual.transformer.resblocks[-1]
    width = visual.conv1.out_channels
    value = F.linear(
        block.ln_1(last_input[0]),
        block.attn.in_proj_weight[2 * width :],
        block.attn.in_proj_bias[2 * width :],
    )
    value = visual.ln_post(block.attn.out_proj(value)[1:].transpose(0, 1)) @ visual.proj
    found = VisualEncoder(visual)(images, patch_path="value")
    assert_close(found.patches, value)
    assert_close(found.unit().patches, F.normalize(value, dim=-1))


def test_attention_counts_patches_not_the_class_token(clip_model, images):
    encoder = VisualEncoder(clip_model.visual)
    found = encoder(images, patch_path="value")
    assert encoder.num_patches == 16
    assert found.cls_attention.shape == (4, 16)
    assert (found.cls_attention > 0).all()
    assert (found.cls_attention.sum(1) < 1).all()  # the class token's own share is left out


def test_before_block_runs_before_every_block(clip_model, images):
    seen = []

    def note(depth, x):
        seen.append((depth, x.shape[1]))
        return x

    encoder = VisualEncoder(clip_model.visual)
    assert torch.equal(encoder(images, before_block=note).cls, encoder(images).cls)
    assert seen == [(0, 17), (1, 17), (2, 17)]


def test_resnet_has_one_feature_and_no_patches(resnet_clip, images):
    encoder = build_visual_encoder(resnet_clip.visual)
    assert isinstance(encoder, ResNetEncoder)
    assert_close(encoder(images).cls, resnet_clip.encode_image(images))
    assert encoder(images).unit().patches is None
