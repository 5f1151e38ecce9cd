"""The mean over epochs equals the weighted sum written down."""

import pytest
import torch
from torch import nn

from runs.average import EpochAverage, gaussian_weights
from tests.conftest import assert_close

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    ("epochs", "mean", "std"), [(20, 15.0, 1.0), (50, 30.0, 30.0), (5, 6.0, 10.0)]
)
def test_weights_are_normal_densities_that_sum_to_one(epochs, mean, std):
    epoch = torch.arange(1, epochs + 1, dtype=torch.float64)
    density = torch.distributions.Normal(mean, std).log_prob(epoch).exp()
    found = gaussian_weights(epochs, mean, std)
    assert_close(found, density / density.sum())


def test_weights_far_from_the_mean_still_sum_to_one():
    assert gaussian_weights(3, mean=100.0, std=1.0).sum() == 1  # each density rounds to zero


def test_installed_parameters_are_the_weighted_sum():
    module = nn.Linear(2, 1)
    module.bias.requires_grad_(False)
    bias = module.bias.clone()
    average = EpochAverage(module, torch.tensor([0.25, 0.75]))
    for epoch, value in enumerate((1.0, 3.0)):
        nn.init.constant_(module.weight, value)
        average.add(epoch)
    average.install()
    assert torch.equal(module.weight, torch.full((1, 2), 0.25 * 1 + 0.75 * 3))
    assert torch.equal(module.bias, bias)


def test_it_goes_on_from_a_saved_state():
    module = nn.Linear(2, 1, bias=False)
    average, other = (EpochAverage(module, torch.tensor([0.5, 0.5])) for _ in range(2))
    average.add(0)
    other.load_state_dict(average.state_dict(), epochs=1)
    assert torch.equal(other.sums["weight"], 0.5 * module.weight)


def test_a_longer_run_gives_earlier_epochs_the_share_they_have_there():
    module = nn.Linear(2, 1, bias=False)
    average = EpochAverage(module, gaussian_weights(3, mean=4.0, std=1.0))
    longer, alone = (EpochAverage(module, gaussian_weights(6, 4.0, 1.0)) for _ in range(2))
    for epoch in range(6):
        nn.init.constant_(module.weight, epoch)
        alone.add(epoch)
        if epoch < 3:
            average.add(epoch)
        if epoch == 2:
            longer.load_state_dict(average.state_dict(), epochs=3)
        if epoch > 2:
            longer.add(epoch)
    torch.testing.assert_close(longer.sums["weight"], alone.sums["weight"])
