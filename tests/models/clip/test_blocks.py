"""The opened block equals CLIP's own."""

import copy

import pytest
import torch

from models.clip.blocks import attend_with_map, deep_prompts, mlp, read_class_token, run_block
from tests.conftest import assert_close

pytestmark = pytest.mark.usefixtures("float64")


def tokens(clip_model, length=17):
    width = clip_model.visual.conv1.out_channels
    return torch.randn(3, length, width, generator=torch.Generator().manual_seed(2))


def test_block_equals_clips_block(clip_model):
    block, x = clip_model.visual.transformer.resblocks[0], tokens(clip_model)
    expected = block(x.transpose(0, 1)).transpose(0, 1)  # CLIP's blocks are length first
    assert_close(run_block(block, x), expected)


def test_causal_block_does_not_see_later_tokens(clip_model):
    block, x = clip_model.transformer.resblocks[0], tokens(clip_model, 9)
    changed = x.clone()
    changed[:, 5:] += 1
    before, after = run_block(block, x, causal=True), run_block(block, changed, causal=True)
    assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def full_attention(block, x, **kwargs):
    normed = block.ln_1(x).transpose(0, 1)
    out, share = block.attn(normed, normed, normed, need_weights=True, **kwargs)
    return out.transpose(0, 1), share  # (B, L, L), mean of heads


def test_attention_tells_what_token_0_attends_to(clip_model):
    block, x = clip_model.visual.transformer.resblocks[1], tokens(clip_model)
    out, share = attend_with_map(block.attn, block.ln_1(x))
    expected, full = full_attention(block, x)
    assert_close(out, expected)
    assert_close(share, full[:, 0])


def test_a_block_read_for_token_0_alone(clip_model):
    block, x = clip_model.visual.transformer.resblocks[-1], tokens(clip_model)
    cls, value, share = read_class_token(block, x)
    assert_close(cls, run_block(block, x)[:, 0])
    assert_close(share, full_attention(block, x)[1][:, 0])
    alone = torch.full((x.shape[1], x.shape[1]), -torch.inf).fill_diagonal_(0)
    expected, _ = full_attention(block, x, attn_mask=alone)  # each token sees itself alone
    assert_close(block.attn.out_proj(value), expected)


def test_mlp_with_quick_gelu_in_one_operator(clip_model):
    block, x = clip_model.visual.transformer.resblocks[0], tokens(clip_model)
    assert_close(mlp(block, x), block.mlp(block.ln_2(x)))


def test_mlp_with_another_activation(clip_model):
    block, x = copy.deepcopy(clip_model.visual.transformer.resblocks[0]), tokens(clip_model)
    block.mlp.gelu = torch.nn.GELU()
    assert torch.equal(mlp(block, x), block.mlp(block.ln_2(x)))


def test_blocks_pass_gradients(clip_model):
    x = tokens(clip_model).requires_grad_()
    run_block(clip_model.visual.transformer.resblocks[0], x).square().sum().backward()
    assert x.grad.abs().sum() > 0


def test_deep_prompts_replace_what_stands_there_before_their_own_blocks():
    x = torch.arange(12.0).view(1, 6, 2).repeat(2, 1, 1)
    prompts = [torch.full((2, 2), 100.0), torch.full((2, 2), 200.0)]
    for where, positions in ((slice(1, 3), [1, 2]), (slice(-2, None), [4, 5])):
        seam = deep_prompts(prompts, where)
        for depth, value in ((0, None), (1, 100.0), (2, 200.0), (3, None)):
            expected = x.clone()
            if value is not None:
                expected[:, positions] = value
            assert torch.equal(seam(depth, x), expected)
