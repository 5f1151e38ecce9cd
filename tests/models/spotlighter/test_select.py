"""Method, section 3, against loops over images, patches, candidates and slots."""

import math

import pytest
import torch

from models.clip.blocks import unit
from models.clip.prune import log_attention, standardise
from models.spotlighter import select as ts
from tests.conftest import assert_close

pytestmark = pytest.mark.usefixtures("float64")

B, C, N, M, D = 3, 6, 10, 4, 8


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def patches():
    return unit(random(B, N, D))


@pytest.fixture
def prototypes():
    return unit(random(C, M, D, seed=1))


@pytest.fixture
def candidates():
    return ts.candidate_classes(random(B, C, seed=2) * 3, 3)


def test_candidates_are_a_softmax_over_the_top_classes():
    logits = torch.tensor([[1.0, 4.0, 2.0, 3.0]], requires_grad=True)
    found = ts.candidate_classes(logits, 2)
    assert found.index.tolist() == [[1, 3]]
    e = math.exp(1)
    assert_close(found.weight, torch.tensor([[e / (1 + e), 1 / (1 + e)]]))
    assert not found.weight.requires_grad


def test_candidates_never_outnumber_the_classes():
    assert ts.candidate_classes(random(B, C), 99).index.shape == (B, C)


def test_standardise_is_a_z_score_over_patches():
    score = random(B, N) * 5 + 3
    found = standardise(score)
    for b in range(B):
        row = score[b].tolist()
        mean = sum(row) / N
        spread = math.sqrt(sum((x - mean) ** 2 for x in row) / N)
        expected = [(x - mean) / (spread + 1e-6) for x in row]
        assert_close(found[b], torch.tensor(expected))
    assert torch.equal(standardise(torch.ones(1, 4)), torch.zeros(1, 4))


def test_attention_score_ranks_as_attention_does_and_is_finite():
    attention = torch.tensor([[0.5, 0.0, 0.2]])
    score = log_attention(attention)
    assert torch.isfinite(score).all()
    assert score.argsort(descending=True).tolist() == [[0, 2, 1]]
    assert_close(score[0, 0], torch.tensor(0.5).log())


def test_similarity_score_equals_the_loop(patches, candidates):
    text = unit(random(C, D, seed=3))
    found = ts.similarity_score(ts.ScoreInput(patches, random(B, N), text, candidates))
    for b in range(B):
        pairs = list(zip(candidates.index[b], candidates.weight[b], strict=True))
        mean = sum(w * text[i] for i, w in pairs)
        for n in range(N):
            assert_close(found[b, n], patches[b, n] @ mean)


def test_semantic_score_equals_the_loop(patches, prototypes, candidates):
    found = ts.semantic_score(patches, prototypes, candidates)
    for b in range(B):
        for n in range(N):
            total = 0.0
            for i, w in zip(candidates.index[b], candidates.weight[b], strict=True):
                total += w * max(patches[b, n] @ prototypes[i, m] for m in range(M))
            assert_close(found[b, n], total)


def test_top_patches_come_in_descending_order_with_ties_to_the_lower_index(patches):
    activation = torch.tensor([[0.0, 3, 1, 3, 2, -1, 0, 0, 0, 3]]).expand(B, -1)
    found = ts.select_top(patches, activation, 4)
    assert found.indices.tolist() == [[1, 3, 9, 4]] * B
    assert_close(found.tokens[1, 2], patches[1, 9])
    expected = torch.tensor([3.0, 3, 3, 2]).softmax(0)
    assert_close(found.weight[0], expected)


def test_fused_token_is_the_weighted_mean_of_the_others(patches):
    activation = random(B, N, seed=4)
    found = ts.select_top(patches, activation, 4)
    for b in range(B):
        rest = [n for n in range(N) if n not in found.indices[b].tolist()]
        weight = torch.stack([activation[b, n].exp() for n in rest])
        expected = sum(w * patches[b, n] for w, n in zip(weight / weight.sum(), rest, strict=True))
        assert_close(found.fused[b], expected)


def test_permuting_patches_permutes_indices(patches):
    activation, order = random(B, N, seed=5), torch.randperm(N)
    plain = ts.select_top(patches, activation, 3)
    moved = ts.select_top(patches[:, order], activation[:, order], 3)
    assert torch.equal(order[moved.indices], plain.indices)
    assert_close(moved.tokens, plain.tokens)
    assert_close(moved.fused, plain.fused)


def test_keeping_every_patch_is_allowed(patches):
    found = ts.select_top(patches, random(B, N), N)
    assert found.tokens.shape == (B, N, D)
    assert torch.isfinite(found.fused).all()


@pytest.mark.parametrize("num_keep", [0, N + 1])
def test_keeping_more_than_there_are_is_refused(patches, num_keep):
    with pytest.raises(ValueError, match=rf"must lie in 1..{N} for this backbone, got {num_keep}"):
        ts.select_top(patches, random(B, N), num_keep)
