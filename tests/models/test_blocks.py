"""The opened block equals CLIP's own."""

import torch

from models.blocks import class_token_attention, deep_prompts, run_block, run_blocks, value_path


def tokens(clip_model, length=17):
    width = clip_model.visual.conv1.out_channels
    return torch.randn(3, length, width, generator=torch.Generator().manual_seed(2))


def test_block_equals_clips_block(clip_model):
    block, x = clip_model.visual.transformer.resblocks[0], tokens(clip_model)
    expected = block(x.transpose(0, 1)).transpose(0, 1)  # CLIP's blocks are length first
    torch.testing.assert_close(run_block(block, x), expected, rtol=1e-5, atol=1e-5)


def test_causal_block_does_not_see_later_tokens(clip_model):
    block, x = clip_model.transformer.resblocks[0], tokens(clip_model, 9)
    changed = x.clone()
    changed[:, 5:] += 1
    before, after = run_block(block, x, causal=True), run_block(block, changed, causal=True)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_class_token_attention_equals_first_row_of_the_full_map(clip_model):
    block, x = clip_model.visual.transformer.resblocks[-1], tokens(clip_model)
    normed = block.ln_1(x).transpose(0, 1)
    _, full = block.attn(normed, normed, normed, need_weights=True)  # (B, L, L), mean of heads
    torch.testing.assert_close(class_token_attention(block, x), full[:, 0], rtol=1e-5, atol=1e-7)


def test_value_path_is_attention_that_sees_itself_alone(clip_model):
    block, x = clip_model.visual.transformer.resblocks[-1], tokens(clip_model)
    alone = torch.full((x.shape[1], x.shape[1]), -torch.inf).fill_diagonal_(0)
    normed = block.ln_1(x).transpose(0, 1)
    expected, _ = block.attn(normed, normed, normed, attn_mask=alone)
    torch.testing.assert_close(value_path(block, x), expected.transpose(0, 1), rtol=1e-4, atol=1e-5)


def test_before_block_sees_every_depth_and_may_drop_tokens(clip_model):
    seen = []

    def drop_one(depth, x):
        seen.append((depth, x.shape[1]))
        return x[:, :-1]

    x = tokens(clip_model)
    out = run_blocks(clip_model.visual.transformer.resblocks, x, before_block=drop_one)
    assert seen == [(0, 17), (1, 16), (2, 15)]
    assert out.shape == (3, 14, x.shape[2])


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
