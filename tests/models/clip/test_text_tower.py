"""The text tower on embeddings equals CLIP's on token ids, at any length that holds the EOS."""

import logging

import pytest
import torch
import torch.nn.functional as F

from models.clip import text_tower as text_encoder
from models.clip.openai import import_clip
from models.clip.text_tower import Layout, TextEncoder, common_prefix, split_prompts
from models.clip.tokenizer import clip_tokenizer, normalise_name
from tests.conftest import assert_close

pytestmark = pytest.mark.usefixtures("float64")

TEXTS = ["a photo of a dog.", "a photo of a very large and old oak tree.", "x"]


def test_encode_equals_clip_at_77_positions(clip_model):
    ids = import_clip().tokenize(TEXTS)
    expected = F.normalize(clip_model.encode_text(ids), dim=-1)
    assert_close(TextEncoder(clip_model).encode(TEXTS), expected)


def prompts_of(clip_model, texts, num_prefix=None, *, shared=True):
    """Sentences as prompts, with as long a prefix as they share, or a shorter one."""
    tokens = clip_tokenizer().tokenize(texts)
    num_prefix = common_prefix(tokens.ids, tokens.eos, num_prefix)
    layout = Layout(tokens.eos + 1 - num_prefix, tokens.ids[:, num_prefix:] if shared else None)
    return split_prompts(clip_model.token_embedding(tokens.ids), layout, num_prefix)


def clip_text(clip_model, texts):
    return clip_model.encode_text(import_clip().tokenize(texts))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("num_prefix", [1, 2, 4, None])
def test_any_split_gives_clips_features(clip_model, num_prefix, shared):
    texts = ["a photo of a dog.", "a photo of a large and old oak tree.", "a photo of a"]
    found = TextEncoder(clip_model)(prompts_of(clip_model, texts, num_prefix, shared=shared))
    assert_close(found[0], clip_text(clip_model, texts))


# They begin alike: with one, two and three words, as a whole, and with a name inside a name.
ALIKE = [
    f"a photo of a {name}."
    for name in ("red fox", "old oak", "red owl", "old oak tree", "red fox", "old", "old oak chair")
]


@pytest.mark.parametrize("rows", [1, 9, 100])
def test_tails_that_begin_alike_are_computed_once(clip_model, monkeypatch, rows):
    """Features and gradients of the context and of the tails' own embeddings, in any parts."""
    monkeypatch.setattr(text_encoder, "ROWS_AT_A_TIME", rows)
    encoder = TextEncoder(clip_model)
    alike, apart = (prompts_of(clip_model, ALIKE, shared=shared) for shared in (True, False))
    assert (len(alike.tail), len(apart.tail)) == (19, 29)
    with torch.no_grad():
        assert_close(encoder(alike)[0], clip_text(clip_model, ALIKE))
    assert_close(*(learned(encoder, prompts)[1] for prompts in (alike, apart)))
    weight = clip_model.token_embedding.weight
    found = []
    for prompts in (alike, apart):
        loss = encoder(prompts)[0].square().sum()
        found.append(torch.autograd.grad(loss, weight)[0])
    assert_close(*found)


def test_the_packing_of_tails_that_begin_alike():
    ids = torch.tensor([[5, 6, 9, 0], [5, 7, 6, 9], [5, 6, 9, 0], [6, 9, 0, 0]])
    layout = Layout(torch.tensor([3, 4, 3, 2]), ids)
    ((rows, whole),) = layout.parts(100)
    assert rows == slice(None)
    assert ids.flatten()[whole.cell].tolist() == [5, 6, 9, 7, 6, 9, 6, 9]
    assert whole.place.tolist() == [0, 1, 2, 1, 2, 3, 0, 1]
    assert whole.end.tolist() == [2, 5, 2, 7]
    assert whole.row.tolist() == [[0, 1, 2, 2], [0, 3, 4, 5], [0, 1, 2, 2], [6, 7, 7, 7]]
    parts = list(layout.parts(7))
    assert [rows.tolist() for rows, _ in parts] == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 6, 7]]
    assert parts[1][1].row.tolist() == [[0, 1, 2], [3, 4, 4]]


def test_one_class_alone_and_equal_names(clip_model):
    for texts in (["a dog."], ["a dog.", "a dog."]):
        found = TextEncoder(clip_model)(prompts_of(clip_model, texts))
        assert_close(found[0], clip_text(clip_model, texts))


def test_groups_have_prefixes_of_their_own(clip_model):
    encoder = TextEncoder(clip_model)
    prompts = prompts_of(clip_model, ["a photo of a dog.", "a photo of a big cat."])
    prefix = prompts.prefix + 0.1 * torch.randn(3, *prompts.prefix.shape[1:])
    each = [encoder(prompts._replace(prefix=one[None]))[0] for one in prefix]
    found = encoder(prompts._replace(prefix=prefix))
    assert_close(found, torch.stack(each))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_chunks_give_equal_features_and_gradients(clip_model, chunk, shared):
    """MODEL.TEXT_CHUNK: the rest is recomputed in the backward pass."""
    texts = [f"a photo of {'very ' * i}old dog." for i in (0, 4, 1, 0, 2)]
    results = []
    for size in (0, chunk):
        encoder = TextEncoder(clip_model)
        encoder.chunk = size
        results.append(learned(encoder, prompts_of(clip_model, texts, shared=shared)))
    (features, gradient), (chunked, recomputed) = results
    assert_close(chunked, features)
    assert (recomputed - gradient).abs().max() < 1e-5 * gradient.abs().max()


def learned(encoder, prompts):
    """Features and the gradient of the context."""
    prefix = prompts.prefix.detach().repeat(2, 1, 1).requires_grad_()
    out = encoder(prompts._replace(prefix=prefix, tail=prompts.tail.detach()))
    out.square().sum().backward()
    return out.detach(), prefix.grad


def test_where_memory_is_short_prompts_are_taken_in_parts(clip_model, monkeypatch, caplog):
    caplog.set_level("INFO", "models.clip.text_tower")
    prompts = prompts_of(clip_model, [f"a photo of {'very ' * i}old dog." for i in (0, 4, 1, 0, 2)])
    encoder = TextEncoder(clip_model)
    features, gradient = learned(encoder, prompts)
    assert encoder.prompts_at_a_time(prompts) == 0
    assert not caplog.records
    encoder, size = TextEncoder(clip_model), encoder.bytes_of_a_prompt(prompts)
    monkeypatch.setattr(text_encoder, "free_memory", lambda device: 16 * size)
    found, recomputed = learned(encoder, prompts)
    assert "4 prompts at a time for want of memory (MODEL.TEXT_CHUNK): all 10 would" in caplog.text
    torch.testing.assert_close(found, features, rtol=1e-5, atol=1e-5)
    assert (recomputed - gradient).abs().max() < 1e-5 * gradient.abs().max()


def test_without_gradients_rows_are_bounded(clip_model, monkeypatch):
    monkeypatch.setattr(text_encoder, "ROWS_AT_A_TIME", 20)
    texts = [f"a photo of {'very ' * i}old dog." for i in (0, 4, 1, 0, 2)]
    encoder, seen = TextEncoder(clip_model), []
    encode = encoder.encode_part

    def note(prefix, tail, *others):
        seen.append(len(tail))
        return encode(prefix, tail, *others)

    monkeypatch.setattr(encoder, "encode_part", note)
    with torch.no_grad():
        found = encoder(prompts_of(clip_model, texts))[0]
    assert_close(found, clip_text(clip_model, texts))
    assert len(seen) > 1
    assert max(seen) <= 20


@pytest.mark.parametrize(("rows", "sizes"), [(72, [3, 2]), (50, [2, 2, 1]), (12, [1] * 5)])
def test_groups_are_taken_with_all_tails_where_these_fit(clip_model, monkeypatch, rows, sizes):
    """So a prefix is computed once: 4 tokens of it, and 20 of tails that begin alike."""
    encoder, seen = TextEncoder(clip_model), []
    prompts = prompts_of(clip_model, ALIKE, 4)
    prefix = prompts.prefix + 0.1 * torch.randn(5, *prompts.prefix.shape[1:])
    prompts = prompts._replace(prefix=prefix)
    whole, encode = encoder(prompts), encoder.encode_part

    def note(prefix, tail, *others):
        seen.append((len(prefix), len(tail)))
        return encode(prefix, tail, *others)

    monkeypatch.setattr(encoder, "encode_part", note)
    monkeypatch.setattr(text_encoder, "ROWS_AT_A_TIME", rows)
    with torch.no_grad():
        assert_close(encoder(prompts), whole)
    if rows >= 4 + len(prompts.tail):
        assert seen == [(size, len(prompts.tail)) for size in sizes]
    else:  # not even one: parts of the tails
        assert len(seen) > 5
        assert {size for size, _ in seen} == {1}
    assert all(size * (4 + tail) <= rows for size, tail in seen)


def test_before_block_can_replace_tokens_of_the_prefix(clip_model):
    encoder, prompts = TextEncoder(clip_model), prompts_of(clip_model, TEXTS[:2])
    seen = []

    def blank(depth, x):
        seen.append((depth, x.shape[1]))
        return torch.zeros_like(x) if depth == 1 else x

    assert not torch.allclose(encoder(prompts), encoder(prompts, blank))
    assert seen == [(0, 5), (1, 5)]


def test_tokens_end_with_the_longest_sentence():
    tokens = clip_tokenizer().tokenize(TEXTS)
    assert tokens.ids.shape[1] == tokens.eos.max() + 1
    assert torch.equal(tokens.ids, import_clip().tokenize(TEXTS)[:, : tokens.ids.shape[1]])


def test_a_sentence_that_is_too_long_is_cut_and_named(caplog):
    with caplog.at_level(logging.WARNING):
        tokens = clip_tokenizer().tokenize(["word " * 100, "short"])
    assert tokens.ids.shape == (2, 77)
    assert "word word" in caplog.text
    assert "short" not in caplog.text


def test_a_sentence_that_just_fits_is_not_named(caplog):
    text = " ".join(["dog"] * 75)
    assert clip_tokenizer().count(text) == 75
    with caplog.at_level(logging.WARNING):
        assert clip_tokenizer().tokenize([text]).ids.shape == (1, 77)
    assert not caplog.text


@pytest.mark.parametrize("name", ["annual crop land", "annual_crop_land", " annual  crop_land "])
def test_underscores_are_spaces(name):
    assert normalise_name(name) == "annual crop land"
