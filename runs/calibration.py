"""How good probabilities are: negative log-likelihood and calibration, in float64.

Sources: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, sections 2 and 3.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 15  # of equal width over 0..1; a bin holds its upper end, not its lower one
COLDEST, WARMEST = 0.01, 100.0  # temperatures that are tried
Reliability = dict[str, list[Any]]  # n, confidence and accuracy of each bin


def bin_sums(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """By bin: number of pictures, sum of top probabilities, number of right ones (3, BINS)."""
    ends = np.linspace(0, 1, BINS + 1)[1:-1]
    place = np.digitize(confidence, ends, right=True)
    weights = (None, np.asarray(confidence, float), np.asarray(right, float))
    return np.stack([np.bincount(place, weights=w, minlength=BINS) for w in weights]).astype(float)


def ece(sums: np.ndarray) -> float:
    """The expected calibration error in percent, of `bin_sums` of one picture or more."""
    n, confidence, right = sums
    return float(100 * np.abs(confidence - right).sum() / n.sum())


def reliability(sums: np.ndarray) -> Reliability:
    """A reliability diagram for results.json: percent, None where a bin is empty."""
    n, *parts = sums
    found: Reliability = {"n": [int(count) for count in n]}
    for name, part in zip(("confidence", "accuracy"), parts, strict=True):
        found[name] = [round(100 * p / k, 4) if k else None for p, k in zip(part, n, strict=True)]
    return found


def pooled(diagrams: Sequence[Reliability]) -> Reliability:
    """The diagram of all pictures of some diagrams of `reliability`.

    Raises ValueError for what is no such diagram.
    """
    sums = np.zeros((3, BINS))
    for diagram in diagrams:
        try:
            rows = np.array([diagram[name] for name in ("n", "confidence", "accuracy")], float)
        except (KeyError, TypeError, ValueError):
            rows = np.empty(0)
        if rows.shape != sums.shape or not (np.isfinite(rows) | (rows[0] == 0)).all():
            raise ValueError(f"no n, confidence and accuracy of {BINS} bins: {diagram!r:.60}")
        n, *parts = rows
        sums += [n, *(np.where(n > 0, n * part / 100, 0) for part in parts)]
    return reliability(sums)


class Calibration:
    """Sums over pictures, of which their figures are made; logits are divided by `temperature`."""

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature, self.loss, self.sums = temperature, 0.0, np.zeros((3, BINS))

    def add(self, logits: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Take in logits (B, C) and labels (B,) of a batch; return log-probabilities (B, C).

        B may be 0.
        """
        scaled = np.asarray(logits, float) / self.temperature
        scaled = scaled - scaled.max(1, keepdims=True)
        log_p = scaled - np.log(np.exp(scaled).sum(1, keepdims=True))
        self.loss -= float(log_p[np.arange(len(label)), label].sum())
        right = np.argmax(logits, axis=1) == label
        self.sums += bin_sums(np.exp(log_p.max(axis=1)), right)
        return np.asarray(log_p)

    def figures(self) -> dict[str, float]:
        """`nll`, the mean over the pictures in nats, and `ece` in percent."""
        return {"nll": self.loss / float(self.sums[0].sum()), "ece": ece(self.sums)}

    def record(self) -> dict[str, Any]:
        """What of it goes into results.json."""
        return self.figures() | {"reliability": reliability(self.sums)}


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """The temperature in COLDEST..WARMEST of least nll, of logits (B, C) and labels (B,).

    The loss is convex in 1 / T, and its slope is the mean of sum_c p_c z_c - z_label. The ends are
    for logits of which each label has the largest, and for those that say nothing of the labels.
    """
    from scipy.optimize import brentq  # half a second, which other runs do not pay
    from scipy.special import softmax

    z = np.asarray(logits, float)
    z = z - z[np.arange(len(label)), label][:, None]

    def slope(inverse: float) -> float:
        return float((softmax(inverse * z, axis=1) * z).sum(axis=1).mean())

    if slope(1 / COLDEST) <= 0:
        return COLDEST
    if slope(1 / WARMEST) >= 0:
        return WARMEST
    return 1 / float(brentq(slope, 1 / WARMEST, 1 / COLDEST))
