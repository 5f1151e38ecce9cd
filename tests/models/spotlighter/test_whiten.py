"""The whitened space against its definition."""

import pytest
import torch

from models.clip.blocks import unit
from models.spotlighter.whiten import Whitening, shrunk
from tests.conftest import assert_close

pytestmark = pytest.mark.usefixtures("float64")

N, D, GROUPS = 300, 6, 5


def features(seed=0):
    generator = torch.Generator().manual_seed(seed)
    group = torch.arange(N) % GROUPS
    spread = torch.tensor([2.0, 1.5, 1.0, 0.8, 0.6, 0.4])
    centres = torch.randn(GROUPS, D, generator=generator)
    return centres[group] + spread * torch.randn(N, D, generator=generator), group


def test_before_fitting_it_only_scales():
    x = features()[0]
    assert_close(Whitening(D)(x), unit(x))


def test_within_a_group_all_directions_spread_alike():
    x, group = features()
    space = Whitening(D)
    space.fit(x, group)
    moved = (x - space.mean) @ space.matrix
    residual = torch.stack([moved[i] - moved[group == group[i]].mean(0) for i in range(N)])
    covariance = residual.T @ residual / (N - GROUPS)
    scale = covariance.diagonal().mean()
    torch.testing.assert_close(covariance / scale, torch.eye(D), rtol=0, atol=0.2)
    before = x - torch.stack([x[group == g].mean(0) for g in group])
    spread = before.square().mean(0)
    assert spread.max() > 20 * spread.min()
    assert_close(space(x), unit(moved))


def test_shrinkage_equals_the_published_formula_and_grows_as_samples_get_fewer():
    x = features()[0]
    covariance = torch.cov(x.T)
    p, trace = D, covariance.trace()
    squares = (covariance @ covariance).trace()
    shares = []
    for free in (20, 200):
        rho = ((1 - 2 / p) * squares + trace**2) / ((free + 1 - 2 / p) * (squares - trace**2 / p))
        expected = (1 - rho) * covariance + rho * trace / p * torch.eye(p)
        assert_close(shrunk(covariance, free), expected)
        shares.append(rho)
    assert shares[0] > shares[1]


def test_one_shot_has_no_spread_and_learns_the_mean_alone():
    x = features()[0][:GROUPS]
    space = Whitening(D)
    space.fit(x, torch.arange(GROUPS))
    assert torch.equal(space.matrix, torch.eye(D))
    assert_close(space.mean, x.mean(0))


def test_a_direction_is_turned_without_the_mean():
    x, group = features()
    space = Whitening(D)
    space.fit(x, group)
    assert_close(space.whiten_direction(x[:3]), unit(x[:3] @ space.matrix))
