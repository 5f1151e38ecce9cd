"""The learned map on image features: 1x1 convolution, batch norm, ReLU, 1x1 convolution."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def running_statistics(
    learned: Mapping[str, Tensor], name: str
) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
    """Mean and variance of a batch norm that has seen nothing."""
    weight = learned[f"{name}.conv1.1.weight"].detach()
    return weight.new_zeros(weight.shape), weight.new_ones(weight.shape)


def adapt(
    x: Float[Tensor, "R D1"],
    learned: Mapping[str, Tensor],
    name: str,
    statistics: tuple[Float[Tensor, " D2"], Float[Tensor, " D2"]],
    training: bool,
) -> Float[Tensor, "R D2"]:
    """Map R rows as R pictures of one pixel.

    Args:
        x: rows.
        learned: "name.conv1.i.weight" and ".bias"; i = 0 and 3 are the convolutions, 1 the norm.
        name: of the module.
        statistics: running mean and variance, updated in place in training.
        training: whether the norm uses the rows' own statistics.
    """
    weights = {
        i: (learned[f"{name}.conv1.{i}.weight"], learned[f"{name}.conv1.{i}.bias"])
        for i in (0, 1, 3)
    }
    x = F.conv2d(x[:, :, None, None], *weights[0])  # (R, D2, 1, 1)
    x = F.batch_norm(x, *statistics, *weights[1], training=training, momentum=0.1)
    return F.conv2d(x.relu(), *weights[3]).flatten(1)  # (R, D2)
