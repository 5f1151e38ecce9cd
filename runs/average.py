"""A mean of the parameters over epochs, weighted by a bell curve (PromptSRC's aggregation)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

WEIGHTS = "weights of epochs"  # beside the sums in a checkpoint


def gaussian_weights(epochs: int, mean: float, std: float) -> Float[Tensor, " epochs"]:
    """Weights of epochs 1, 2, ..., normal around `mean`; their sum is 1.

    Source: PromptSRC (Khattak et al., ICCV 2023), section 3.2.2
    """
    epoch = torch.arange(1, epochs + 1, dtype=torch.float64)
    # softmax of the logarithm: the densities themselves can all round to zero
    return (-0.5 * ((epoch - mean) / std) ** 2).softmax(0)


class EpochAverage:
    """Sums the trainable parameters at the end of every epoch, with weights that sum to 1."""

    # Not torch's AveragedModel: a checkpoint of a shorter run must get the weights of a longer one.

    def __init__(self, module: nn.Module, weights: Float[Tensor, " epochs"]) -> None:
        self.weights = weights
        self.parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.sums = {name: torch.zeros_like(p) for name, p in self.parameters.items()}

    @torch.no_grad()
    def add(self, epoch: int) -> None:
        """Count the parameters as they are at the end of `epoch`, counted from 0."""
        for name, parameter in self.parameters.items():
            self.sums[name] += self.weights[epoch].item() * parameter

    @torch.no_grad()
    def install(self) -> None:
        """Give the parameters their means."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.sums[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The sums so far and the weights, for a checkpoint."""
        return self.sums | {WEIGHTS: self.weights}

    def load_state_dict(self, state: dict[str, Tensor], epochs: int) -> None:
        """Go on after some epochs; a run that is made longer has other weights for them."""
        before = state.get(WEIGHTS, self.weights)[:epochs].sum()
        own = self.weights[:epochs].sum()
        share = own / before if before > 0 and before != own else 1.0
        for name, total in self.sums.items():
            total.copy_(state[name] * share)
