"""Method, sections 4 and 5, against loops over images, classes and ranks."""

import math

import pytest
import torch

from models import ranking
from models.blocks import unit

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


@pytest.fixture
def slots(text, prototypes, mass):
    return ranking.rank_slots(text, prototypes, mass, mix=torch.tensor(0.7), temperature=0.1)


@pytest.mark.parametrize(
    ("keep", "level1", "expected"),
    [(5, 3, [(0, 3), (3, 5)]), (5, 5, [(0, 5)]), (2, 3, [(0, 2)]), (1, 1, [(0, 1)])],
)
def test_levels_split_the_ranks_and_an_empty_one_is_left_out(keep, level1, expected):
    assert [(s.start, s.stop) for s in ranking.levels(keep, level1)] == expected


def test_slots_are_ranked_by_text_and_evidence(text, prototypes, mass, slots):
    for c in range(C):
        log_mass = [math.log(1 + m) for m in mass[c].tolist()]
        mean = sum(log_mass) / M
        b = [
            (text[c] @ prototypes[c, m]).item() / 0.1 + 0.7 * (log_mass[m] - mean) for m in range(M)
        ]
        order = sorted(range(M), key=lambda m: -b[m])
        torch.testing.assert_close(slots.prototypes[c], prototypes[c, order])
        expected = torch.tensor(b)[order].softmax(0)
        torch.testing.assert_close(slots.weight[c], expected, rtol=1e-4, atol=1e-6)


def test_text_rows_are_text_and_prototypes_rank_by_rank(text, slots):
    g, gain = unit(random(C, D, seed=4)), torch.tensor([0.9, 0.3, 0.2])
    rows = ranking.map_text(text, g, slots, gain=gain, level1=3, num_keep=K)
    assert rows.shape == (C, K + 2, D)
    for c in range(C):
        torch.testing.assert_close(rows[c, 0], text[c] + 0.9 * g[c])
        for j in range(K):
            u = 0.3 if j < 3 else 0.2
            expected = text[c] + u * M * slots.weight[c, j] * slots.prototypes[c, j]
            torch.testing.assert_close(rows[c, 1 + j], expected)
        torch.testing.assert_close(rows[c, K + 1], text[c] + 0.2 * slots.prototypes[c].mean(0))


def test_image_rows_attend_from_their_prototype_to_the_level(slots):
    kept, query, key = (unit(random(B, 3, D, seed=s)) for s in (5, 6, 7))
    gain = torch.tensor([0.5, 1.0, 2.0])
    rows = ranking.map_image(kept, query, key, gain=gain, temperature=0.1)
    for b in range(B):
        for j in range(3):
            score = torch.stack([query[b, j] @ key[b, i] / 0.1 for i in range(3)]).softmax(0)
            expected = kept[b, j] + gain[j] * sum(score[i] * kept[b, i] for i in range(3))
            torch.testing.assert_close(rows[b, j], expected, rtol=1e-4, atol=1e-5)


def test_attention_over_more_than_one_key_is_not_constant():
    """The released code attends over a single key, which trains nothing."""
    kept, query = unit(random(B, 3, D, seed=5)), unit(random(B, 3, D, seed=6)).requires_grad_()
    ranking.map_image(kept, query, kept, gain=torch.ones(3), temperature=0.1).sum().backward()
    assert query.grad.abs().sum() > 0


def test_pair_logits_equal_the_loop(text):
    image, rows = unit(random(B, K, D, seed=8)), unit(random(C, K, D, seed=9))
    weight = random(B, K, seed=10).exp()
    found = ranking.pair_logits(image, rows, weight)
    for b in range(B):
        k = weight[b] / weight[b].sum()
        for c in range(C):
            expected = sum(k[j] * (image[b, j] @ rows[c, j]) for j in range(K))
            torch.testing.assert_close(found[b, c], expected)


def test_pair_logits_take_text_that_depends_on_the_image():
    image, rows = unit(random(B, K, D, seed=8)), unit(random(C, K, D, seed=9))
    weight = random(B, K, seed=10).exp()
    torch.testing.assert_close(
        ranking.pair_logits(image, rows.expand(B, -1, -1, -1), weight),
        ranking.pair_logits(image, rows, weight),
    )


def test_pair_weight_is_softplus_times_weight():
    weight = random(B, 2).exp()
    found = ranking.pair_weight(torch.tensor([0.0, 1.0]), weight)
    torch.testing.assert_close(found[:, 0], math.log(2) * weight[:, 0])
    torch.testing.assert_close(found[:, 1], math.log(1 + math.e) * weight[:, 1])
