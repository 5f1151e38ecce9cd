"""Prompts: the published order of slots, for every position."""

import pytest
import torch

from models.clip.openai import import_clip
from models.prompts import PromptLearner

pytestmark = pytest.mark.usefixtures("float64")


def literal_prompt(clip_model, name, ctx, position):
    """CoOp's prompt of one class at 77 positions, written down slot by slot."""
    n_ctx = len(ctx)
    clip = import_clip()
    text = " ".join(["X"] * n_ctx) + f" {name}."
    embedding = clip_model.token_embedding(clip.tokenize(text))[0]  # (77, W)
    name_length = len(clip.clip._tokenizer.encode(name))
    sos, rest = embedding[:1], embedding[1 + n_ctx :]
    word, end = rest[:name_length], rest[name_length:]
    half = n_ctx // 2
    parts = {
        "end": [sos, ctx, word, end],
        "middle": [sos, ctx[:half], word, ctx[half:], end],
        "front": [sos, word, ctx, end],
    }[position]
    return torch.cat(parts)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("csc", [False, True])
@pytest.mark.parametrize("n_ctx", [3, 4])
def test_prompts_equal_the_literal_order(clip_model, class_names, position, csc, n_ctx):
    torch.manual_seed(0)
    learner = PromptLearner(
        class_names,
        clip_model.token_embedding,
        n_ctx=n_ctx,
        csc=csc,
        class_token_position=position,
    )
    prompts = learner.whole()
    for i, name in enumerate(class_names):
        ctx = learner.ctx[i] if csc else learner.ctx
        expected = literal_prompt(clip_model, name.replace("_", " "), ctx, position)
        assert torch.equal(prompts[i], expected[: prompts.shape[1]])


def test_context_starts_from_words(clip_model, class_names):
    learner = PromptLearner(class_names, clip_model.token_embedding, ctx_init="a photo of a")
    ids = import_clip().tokenize("a photo of a")[0, 1:5]
    assert torch.equal(learner.ctx, clip_model.token_embedding(ids))
    assert learner.n_ctx == 4


def test_only_the_context_is_learned_and_saved(clip_model, class_names):
    learner = PromptLearner(class_names, clip_model.token_embedding, n_ctx=2)
    assert [name for name, _ in learner.named_parameters()] == ["ctx"]
    assert list(learner.state_dict()) == ["ctx"]


def test_unknown_position_is_refused(clip_model, class_names):
    with pytest.raises(ValueError, match="must be one of end, middle, front, got 'top'"):
        PromptLearner(class_names, clip_model.token_embedding, class_token_position="top")


@pytest.mark.parametrize("n_ctx", [0, 74])
def test_context_that_leaves_no_room_is_refused(clip_model, class_names, n_ctx):
    with pytest.raises(ValueError, match=rf"must lie in 1..73, got {n_ctx}"):
        PromptLearner(class_names, clip_model.token_embedding, n_ctx=n_ctx)
