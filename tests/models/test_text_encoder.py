"""The text tower on embeddings equals CLIP's on token ids, at any length that holds the EOS."""

import logging

import pytest
import torch
import torch.nn.functional as F

from models.loading import import_clip
from models.text_encoder import TextEncoder
from models.tokenizer import count_tokens, normalise_name, tokenize

TEXTS = ["a photo of a dog.", "a photo of a very large and old oak tree.", "x"]


def test_encode_equals_clip_at_77_positions(clip_model):
    ids = import_clip().tokenize(TEXTS)
    expected = F.normalize(clip_model.encode_text(ids), dim=-1)
    torch.testing.assert_close(
        TextEncoder(clip_model).encode(TEXTS), expected, rtol=1e-5, atol=1e-6
    )


def test_before_block_can_replace_tokens(clip_model):
    encoder = TextEncoder(clip_model)
    tokens = tokenize(TEXTS, 77)
    prompts = clip_model.token_embedding(tokens.ids)

    def blank(depth, x):
        return torch.zeros_like(x) if depth == 1 else x

    plain, changed = encoder(prompts, tokens.eos), encoder(prompts, tokens.eos, blank)
    assert not torch.allclose(plain, changed)


def test_tokens_end_with_the_longest_sentence():
    tokens = tokenize(TEXTS, 77)
    assert tokens.ids.shape[1] == tokens.eos.max() + 1
    assert torch.equal(tokens.ids, import_clip().tokenize(TEXTS)[:, : tokens.ids.shape[1]])


def test_a_sentence_that_is_too_long_is_cut_and_named(caplog):
    with caplog.at_level(logging.WARNING):
        tokens = tokenize(["word " * 100, "short"], 77)
    assert tokens.ids.shape == (2, 77)
    assert "word word" in caplog.text
    assert "short" not in caplog.text


def test_a_sentence_that_just_fits_is_not_named(caplog):
    text = " ".join(["dog"] * 75)
    assert count_tokens(text) == 75
    with caplog.at_level(logging.WARNING):
        assert tokenize([text], 77).ids.shape == (1, 77)
    assert not caplog.text


@pytest.mark.parametrize("name", ["annual crop land", "annual_crop_land", " annual  crop_land "])
def test_underscores_are_spaces(name):
    assert normalise_name(name) == "annual crop land"
