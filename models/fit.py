"""The weights of the parts of the logits, fitted to pictures that a bank has not seen.

A conditional logit: the logits are a weighted sum of parts, the weights are not negative, and the
likelihood of the right classes is maximised. The problem is convex, and it has no learning rate and
no scale: each part is divided by its own spread first.
docs/method.md, section 6. B pictures, C classes, P parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

ROUNDS = 4  # random partitions of the classes into halves that are held out
LEAST_CLASSES = 4  # below it new classes have the weights of the base
MOST_SHOTS, MOST_CLASSES = 16, 250  # the evidence comes from that many, a bank from all
FOLDS = 4  # at most; a class with fewer shots has as many folds as shots
RIDGE = 1e-3  # of the weights in units of the spread, against nats a picture
# The same for classes without pictures, but for the base's weight. Few classes can be held out,
# and they are as many independent trials: lab/held_out_classes.py compares such ridges. Where the
# base alone tells them apart its weight would have no end without a ridge.
CAUTION = 0.1
CLOSELY = {"ftol": 1e-13, "gtol": 1e-8, "maxiter": 2000}  # of the search
TINY = 1e-12  # spread of a part that says nothing


class Judged(NamedTuple):
    """Pictures that a bank has not seen: what each part says of each class, and the true class."""

    parts: Float[Tensor, "B C P"]
    label: Int[Tensor, " B"]


class Fit(NamedTuple):
    """Weights, and how well they do."""

    weights: Float[Tensor, " P"]  # float64, on the CPU
    nll: float  # nats a picture


def choose(label: Int[Tensor, " N"]) -> tuple[Int[Tensor, " N"], Int[Tensor, " C"]]:
    """Which pictures are evidence: their classes among the chosen ones, else -1; and these classes.

    Up to `MOST_SHOTS` pictures a class; of more than `MOST_CLASSES` classes every second, third ...
    """
    present = label.unique()
    classes = present[:: -(-len(present) // MOST_CLASSES)]
    place = places(classes, int(label.max()) + 1)[label]
    return torch.where(turn_in_class(label) < MOST_SHOTS, place, -1), classes


def places(classes: Int[Tensor, " C2"], number: int) -> Int[Tensor, " C"]:
    """The place of each of a number of classes among chosen ones; -1 for none."""
    found = classes.new_full((number,), -1)
    found[classes] = torch.arange(len(classes), device=classes.device)
    return found


def deal_shots(label: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The fold of each picture: the pictures of a class take turns.

    Returns:
        Folds from 0; at most `FOLDS`, and no more than the largest class has pictures. -1 for the
        only picture of its class: without it there would be nothing to judge it by.
    """
    alone = torch.bincount(label)[label] == 1
    return torch.where(alone, -1, turn_in_class(label) % FOLDS)


def turn_in_class(label: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """How many pictures of its class stand before each picture."""
    counts, order = torch.bincount(label), label.argsort(stable=True)
    first = counts.cumsum(0) - counts
    places = torch.arange(len(label), device=label.device)
    return torch.empty_like(label).index_put_((order,), places - first[label[order]])


def deal_classes(num_classes: int, rounds: int, seed: int) -> list[Int[Tensor, " G"]]:
    """Groups of classes to hold out: in each round a random half of the classes, and the others."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(rounds):
        order = torch.randperm(num_classes, generator=generator)
        found += [order[: num_classes // 2].sort().values, order[num_classes // 2 :].sort().values]
    return found


def fit_weights(judged: Sequence[Judged], ridge: float | Sequence[float] = RIDGE) -> Fit:
    """The weights w >= 0 under which the true classes are likeliest.

    Minimises the mean over pictures of -log softmax(sum_p w_p parts_p)[label], plus the sum of
    ridge_p (w_p spread_p)^2. spread_p is the root mean square of part p, centred over the
    classes; so a part that is multiplied by 8 gets an eighth of the weight. One that is the same
    for all classes gets none.

    Args:
        judged: one entry for each list of classes.
        ridge: 0 or more; one for all parts, or one each.

    Raises:
        FloatingPointError: a part is infinite or not a number.
    """
    from scipy.optimize import minimize  # here: a run without a fit does not pay for it

    centred = [
        (one.parts.double() - one.parts.double().mean(1, keepdim=True)).cpu().numpy()
        for one in judged
    ]
    if not all(np.isfinite(x).all() for x in centred):
        raise FloatingPointError(
            "the features of a training picture, or the logits from them, are infinite or not a "
            "number; choose PREC fp32 or bf16, or other weights"
        )
    spread = np.sqrt(np.mean([np.square(x).mean((0, 1)) for x in centred], 0))
    speaks = spread > TINY
    spread[~speaks] = 1
    scaled = [x / spread for x in centred]
    labels = [one.label.cpu().numpy() for one in judged]
    number, pull = sum(map(len, labels)), np.broadcast_to(np.asarray(ridge), spread.shape)

    def objective(weight: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The loss and its gradient."""
        loss, gradient = float(pull @ weight**2), 2 * pull * weight
        for x, label in zip(scaled, labels, strict=True):
            logits, rows = x @ weight, np.arange(len(label))  # (B, C)
            logits = logits - logits.max(1, keepdims=True)
            share = np.exp(logits)
            total = share.sum(1, keepdims=True)
            loss += float((np.log(total[:, 0]) - logits[rows, label]).sum()) / number
            likely = np.einsum("bc,bcp->p", share / total, x)
            gradient = gradient + (likely - x[rows, label].sum(0)) / number
        return loss, gradient

    start = np.eye(len(spread))[0]  # the first part alone, of unit spread: no scale matters
    bounds = [(0.0, None)] * len(spread)
    found = minimize(
        objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=CLOSELY
    )
    nll = float(found.fun) - float(pull @ found.x**2)
    return Fit(torch.from_numpy(np.where(speaks, found.x / spread, 0)), nll)


def fit_offset(
    logits: Float[Tensor, "B C"], is_new: Float[Tensor, "B C"], label: Int[Tensor, " B"]
) -> float:
    """What to add to the logits of classes without pictures, where others in the list have some.

    Args:
        logits: with weights that are fitted already.
        is_new: 1 for a class that the bank of this picture has not seen, else 0.
        label: the true classes.
    """
    from scipy.optimize import bisect

    logits, is_new = logits.double(), is_new.double()
    shown = is_new.gather(1, label.unsqueeze(1)).mean()  # share of pictures of new classes
    if not 0 < shown < 1:
        return 0.0

    def slope(offset: float) -> float:
        """Of the mean negative log-likelihood, which is convex."""
        share = (logits + offset * is_new).softmax(1)
        return float((share * is_new).sum(1).mean() - shown)

    # So far away one kind has less than a picture in all, whatever the scale of the logits.
    end = float(logits.max() - logits.min()) + math.log(logits.numel()) + 1
    return float(bisect(slope, -end, end))
