"""Method, sections 4 and 5, against loops over images, classes and ranks."""

import math

import pytest
import torch

from models.clip.blocks import unit
from models.spotlighter import rank as ranking
from tests.conftest import assert_close

pytestmark = pytest.mark.usefixtures("float64")

B, C, K, M, D = 2, 3, 5, 6, 8


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def text():
    return unit(random(C, D, seed=1))


@pytest.fixture
def prototypes():
    return unit(random(C, M, D, seed=2))


@pytest.fixture
def mass():
    return random(C, M, seed=3).exp()


@pytest.mark.parametrize(
    ("keep", "level1", "expected"),
    [(5, 3, [(0, 3), (3, 5)]), (5, 5, [(0, 5)]), (2, 3, [(0, 2)]), (1, 1, [(0, 1)])],
)
def test_levels_split_the_ranks_and_an_empty_one_is_left_out(keep, level1, expected):
    assert [(s.start, s.stop) for s in ranking.levels(keep, level1)] == expected


def test_the_prior_of_a_slot_is_its_evidence(mass):
    prior = ranking.slot_prior(mass, torch.tensor(0.7))
    for c in range(C):
        log_mass = [math.log(1 + m) for m in mass[c].tolist()]
        expected = torch.tensor([0.7 * (one - sum(log_mass) / M) for one in log_mass])
        assert_close(prior[c], expected)


def test_text_rows_are_prototypes_moved_towards_the_text(text, prototypes, mass):
    g, gain = unit(random(C, D, seed=4)), torch.tensor([0.9, 0.3, 0.2])
    of_patches = unit(random(C, D, seed=11))
    prior = ranking.slot_prior(mass, torch.tensor(1.0))
    rows = ranking.map_text(g, prototypes, (text, of_patches), gain=gain, prior=prior)
    for c in range(C):
        assert_close(rows.cls[c], g[c] + 0.9 * text[c])
        expected = prototypes[c].mean(0) + 0.2 * of_patches[c]
        assert_close(rows.fused[c], expected)
        for level, u in enumerate((0.3, 0.2)):
            for m in range(M):
                expected = prototypes[c, m] + u * of_patches[c]
                assert_close(rows.slots[level, c, m], expected)
    assert torch.equal(rows.prior, prior)


def test_image_rows_attend_from_their_prototype_to_the_level():
    kept, query = (unit(random(B, 3, D, seed=s)) for s in (5, 6))
    gain = torch.tensor([0.5, 1.0, 2.0])
    rows = ranking.map_image(kept, query, gain=gain, temperature=0.1)
    for b in range(B):
        for j in range(3):
            score = torch.stack([query[b, j] @ kept[b, i] / 0.1 for i in range(3)]).softmax(0)
            expected = kept[b, j] + gain[j] * sum(score[i] * kept[b, i] for i in range(3))
            assert_close(rows[b, j], expected)


def test_attention_over_more_than_one_key_is_not_constant():
    """The released code attends over a single key, which trains nothing."""
    kept, query = unit(random(B, 3, D, seed=5)), unit(random(B, 3, D, seed=6)).requires_grad_()
    ranking.map_image(kept, query, gain=torch.ones(3), temperature=0.1).sum().backward()
    assert query.grad.abs().sum() > 0


def test_patches_meet_the_nearest_slots_of_each_class(prototypes, mass):
    image = unit(random(B, K, D, seed=8))
    prior = ranking.slot_prior(mass, torch.tensor(0.5))
    found = ranking.slot_similarity(image, prototypes, prior, 0.1)
    assert found.shape == (B, K, C)
    for b in range(B):
        for j in range(K):
            for c in range(C):
                s = torch.stack([image[b, j] @ prototypes[c, m] for m in range(M)])
                expected = ((s / 0.1 + prior[c]).softmax(0) * s).sum()
                assert_close(found[b, j, c], expected)


def test_a_cold_meeting_is_with_the_nearest_slot_alone(prototypes):
    image = unit(random(B, K, D, seed=8))
    found = ranking.slot_similarity(image, prototypes, torch.zeros(C, M), 1e-6)
    expected = torch.einsum("bkd,cmd->bkcm", image, prototypes).amax(-1)
    assert_close(found, expected)


def test_pairs_are_weighed_within_their_ranks():
    fit, weight = random(B, K, C, seed=9), random(B, K, seed=10).exp()
    found = ranking.weigh_pairs(fit, weight)
    for b in range(B):
        k = weight[b] / weight[b].sum()
        for c in range(C):
            assert_close(found[b, c], sum(k[j] * fit[b, j, c] for j in range(K)))
