import json
import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from runs.calibration import (
    BINS,
    COLDEST,
    WARMEST,
    Calibration,
    bin_sums,
    ece,
    fit_temperature,
    pooled,
    reliability,
)
from runs.record import write_results


@pytest.fixture
def batches():
    """Logits and labels of batches, of which one is empty; confidence from low to high."""
    rng = np.random.default_rng(0)
    sizes = (40, 0, 7, 200)
    scale = (1.0, 1.0, 30.0, 4.0)
    logits = [s * rng.normal(size=(n, 6)) for n, s in zip(sizes, scale, strict=True)]
    return [(some, rng.integers(0, 6, len(some))) for some in logits]


def slow(batches):
    """Mean loss, and pictures, confidences and hits of each bin, picture by picture."""
    losses, bins = [], [[] for _ in range(BINS)]
    for logits, label in batches:
        for scores, true in zip(logits.tolist(), label.tolist(), strict=True):
            total = math.fsum(map(math.exp, scores))
            p = [math.exp(score) / total for score in scores]
            losses.append(math.log(total) - scores[true])
            (place,) = (b for b in range(BINS) if b / BINS < max(p) <= (b + 1) / BINS)
            bins[place].append((max(p), scores[true] == max(scores)))
    return math.fsum(losses) / len(losses), bins


def test_figures_are_those_of_a_slow_loop(batches):
    found = Calibration()
    for logits, label in batches:
        found.add(logits, label)
    loss, bins = slow(batches)
    n = sum(map(len, bins))
    gaps = [len(b) / n * abs(np.mean([c - hit for c, hit in b])) for b in bins if b]
    record = found.record()
    assert record["nll"] == pytest.approx(loss, rel=1e-12)
    assert record["ece"] == pytest.approx(100 * sum(gaps), rel=1e-12)
    diagram = record["reliability"]
    assert diagram["n"] == list(map(len, bins))
    assert 0 in diagram["n"], "an empty bin is to be seen here"
    for part, name in enumerate(("confidence", "accuracy")):
        expected = [100 * np.mean([pair[part] for pair in b]) if b else None for b in bins]
        assert diagram[name] == pytest.approx(expected, abs=1e-4)


def test_a_temperature_divides_the_logits(batches):
    logits, label = batches[-1]
    found, divided = Calibration(2.5), Calibration()
    found.add(logits, label)
    divided.add(logits / 2.5, label)
    assert found.record() == divided.record()


def test_known_figures():
    """Two classes alike: log 2 nats; sure and right: no error; sure and wrong: all of it."""
    found = Calibration()
    found.add(np.zeros((4, 2)), np.array([0, 1, 0, 1]))
    assert found.figures() == {"nll": pytest.approx(math.log(2)), "ece": pytest.approx(0)}
    for right, error in ((True, 0), (False, 100)):
        assert ece(bin_sums(np.ones(3), np.full(3, right))) == error


def test_large_logits_give_finite_figures():
    found = Calibration()
    found.add(np.array([[60000.0, -60000.0]], np.float16), np.array([1]))
    assert found.figures() == {"nll": pytest.approx(120000, rel=1e-3), "ece": 100}


def test_a_bin_holds_its_upper_end():
    ends = np.linspace(0, 1, BINS + 1)
    assert bin_sums(ends[1:], np.ones(BINS))[0].tolist() == [1] * BINS
    assert bin_sums(np.nextafter(ends[1:-1], 1), np.ones(BINS - 1))[0].tolist() == [
        0, *[1] * (BINS - 1),
    ]  # fmt: skip


def test_diagrams_are_pooled_over_pictures(batches):
    sums = []
    for logits, label in batches:
        one = Calibration()
        one.add(logits, label)
        sums.append(one.sums)
    expected = reliability(sum(sums))
    found = pooled(list(map(reliability, sums)))
    assert found["n"] == expected["n"]
    for name in ("confidence", "accuracy"):
        assert found[name] == pytest.approx(expected[name], abs=1e-3)


def test_results_hold_a_list_of_numbers_in_a_line(tmp_path):
    """Words with brackets stay, line breaks in them, too."""
    record = {"n": [1, 2], "part": {"x": [None, -1.5e-7]}, "names": ["[\n1]", "[1,  2]"]}
    text = write_results(tmp_path, record).read_text()
    assert '"n": [ 1, 2 ],' in text
    assert '"x": [ null, -1.5e-07 ]' in text
    assert record.items() <= json.loads(text).items()


@pytest.mark.parametrize("scale", [0.2, 1.0, 9.0])
def test_the_fitted_temperature_has_the_least_loss(scale):
    """Against a search for the least value of the loss, which is known to half of the digits."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(60, 5))
    label = np.array([rng.choice(5, p=np.exp(z) / np.exp(z).sum()) for z in logits])
    logits = scale * logits + rng.normal(size=(60, 1)) * 50

    def loss(log_t):
        losses = []
        for z, true in zip((logits / math.exp(log_t)).tolist(), label, strict=True):
            losses.append(math.log(math.fsum(math.exp(one - z[true]) for one in z)))
        return math.fsum(losses)

    best = minimize_scalar(loss, bounds=(-3, 4), method="bounded", options={"xatol": 1e-9})
    assert math.log(fit_temperature(logits, label)) == pytest.approx(best.x, abs=1e-6)


def test_a_temperature_without_end_stops_at_the_ends():
    sure = 5 * np.eye(3)
    assert fit_temperature(sure, np.arange(3)) == COLDEST
    assert fit_temperature(sure, np.array([1, 2, 0])) == WARMEST
    assert fit_temperature(np.zeros((3, 2)), np.array([0, 1, 0])) in (COLDEST, WARMEST)
