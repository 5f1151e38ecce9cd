"""The fitted weights of the parts of the logits."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from models.fit import Judged, deal_classes, deal_shots, fit_offset, fit_weights

pytestmark = pytest.mark.usefixtures("float64")


def judged(pictures=60, classes=5, parts=3, seed=0):
    """Parts that know something, and one that misleads."""
    random = torch.Generator().manual_seed(seed)
    label = torch.arange(pictures) % classes
    x = torch.randn(pictures, classes, parts, generator=random)
    x[torch.arange(pictures), label] += torch.linspace(1.2, -0.4, parts)
    return Judged(x, label)


def slow_loss(weight, groups, spread, ridge):
    total, number = 0.0, 0
    for parts, label in groups:
        for picture, true in zip(parts.tolist(), label.tolist(), strict=True):
            logits = [sum(w * z for w, z in zip(weight, one, strict=True)) for one in picture]
            total += np.log(sum(np.exp(logits))) - logits[true]
            number += 1
    pull = zip(ridge, weight, spread, strict=True)
    return total / number + sum(r * (w * s) ** 2 for r, w, s in pull)


def slow_spread(groups):
    means = []
    for parts, _ in groups:
        centred = parts - parts.mean(1, keepdim=True)
        means.append([float((centred[..., p] ** 2).mean()) for p in range(parts.shape[-1])])
    return np.sqrt(np.mean(means, 0))


@pytest.mark.parametrize("sizes", [(5,), (5, 3)])
@pytest.mark.parametrize("ridge", [1e-2, (0.0, 0.3, 0.1)])
def test_weights_are_the_minimum_that_a_slow_loop_finds(sizes, ridge):
    """One ridge for all parts, or one each."""
    groups = [judged(20, classes, seed=classes) for classes in sizes]
    found, nll = fit_weights(groups, ridge)
    each = ridge if isinstance(ridge, tuple) else [ridge] * 3
    spread = slow_spread(groups)
    bounds = [(0, None)] * 3
    slow = minimize(
        slow_loss, np.ones(3), (groups, spread, each), "SLSQP", bounds=bounds, tol=1e-12
    )
    assert found.numpy() == pytest.approx(slow.x, abs=2e-3)
    least = slow_loss(found.tolist(), groups, spread, each)
    assert least <= slow.fun + 1e-7
    assert nll == pytest.approx(slow_loss(found.tolist(), groups, spread, [0] * 3))


def test_a_part_that_misleads_gets_nothing_and_none_less_than_nothing():
    weight = fit_weights([judged()]).weights
    assert weight[2] == 0
    assert (weight[:2] > 0).all()


@pytest.mark.parametrize("factor", [8.0, 100.0, 1e-3])
def test_scale_of_a_part_changes_its_weight_and_no_logit(factor):
    one = judged()
    scaled = Judged(one.parts * torch.tensor([factor, 1.0, 1.0]), one.label)
    weight, other = fit_weights([one]).weights, fit_weights([scaled]).weights
    torch.testing.assert_close(one.parts @ weight, scaled.parts @ other, rtol=1e-4, atol=1e-4)


def test_what_is_the_same_for_all_classes_changes_nothing():
    one = judged()
    shifted = Judged(one.parts + torch.randn(len(one.label), 1, 3), one.label)
    weight, other = fit_weights([one]).weights, fit_weights([shifted]).weights
    torch.testing.assert_close(weight, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_a_part_without_a_word_gets_no_weight(place, ridge):
    """Nor is it where the search begins, if it is the first."""
    one, silence = judged(), torch.randn(60, 1, 1).expand(60, 5, 1)
    columns = [one.parts[..., :place], silence, one.parts[..., place:]]
    weight = fit_weights([Judged(torch.cat(columns, -1), one.label)], ridge).weights.tolist()
    assert weight.pop(place) == 0
    assert weight == pytest.approx(fit_weights([one], ridge).weights.tolist(), rel=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_part_that_is_no_number_is_refused(value):
    one = judged()
    one.parts[3, 2, 1] = value
    with pytest.raises(FloatingPointError, match="choose PREC fp32 or bf16"):
        fit_weights([one])


def test_probabilities_are_true_where_the_model_is():
    """Labels drawn from the softmax of twice a part: the fit finds the 2."""
    random = torch.Generator().manual_seed(0)
    parts = torch.randn(4000, 4, 1, generator=random)
    label = torch.multinomial((2 * parts[..., 0]).softmax(1), 1, generator=random).squeeze(1)
    weight = fit_weights([Judged(parts, label)], ridge=0.0).weights
    assert weight.item() == pytest.approx(2, abs=0.15)


def test_shots_of_a_class_take_turns():
    label = torch.tensor([1, 0, 1, 1, 0, 1, 0, 0, 1])
    assert deal_shots(label).tolist() == [0, 0, 1, 2, 1, 3, 2, 3, 0]
    assert deal_shots(torch.tensor([0, 0, 1, 1, 1])).tolist() == [0, 1, 0, 1, 2]
    assert deal_shots(torch.tensor([2, 0, 2])).tolist() == [0, -1, 1]  # class 1 has no picture


def test_each_round_holds_out_each_class_once():
    groups = deal_classes(7, rounds=3, seed=1)
    assert [len(group) for group in groups] == [3, 4] * 3
    for one, other in zip(groups[::2], groups[1::2], strict=True):
        assert sorted([*one.tolist(), *other.tolist()]) == list(range(7))
    assert any(not torch.equal(groups[0], group) for group in groups[2::2])
    again = deal_classes(7, rounds=3, seed=1)
    assert all(map(torch.equal, groups, again))


def test_offset_makes_new_classes_as_likely_as_they_are():
    one = judged(400, 6)
    is_new = torch.zeros(400, 6)
    is_new[:, 3:] = 1
    logits = one.parts[..., 0] - 3 * is_new
    offset = fit_offset(logits, is_new, one.label)
    share = (logits + offset * is_new).softmax(1)
    shown = float((one.label >= 3).double().mean())
    assert float((share * is_new).sum(1).mean()) == pytest.approx(shown)
    losses = [
        torch.nn.functional.cross_entropy(logits + b * is_new, one.label)
        for b in (offset - 0.1, offset, offset + 0.1)
    ]
    assert losses[1] == min(losses)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("gap", [-3e4, -3.0, 3e4])
def test_offset_is_found_however_far_away_it_is(scale, gap):
    """Logits of one kind far from those of the other, as where a CLIP has a large scale."""
    one = judged(400, 6)
    is_new = torch.zeros(400, 6)
    is_new[:, 3:] = 1
    logits = scale * one.parts[..., 0] + gap * is_new
    share = (logits + fit_offset(logits, is_new, one.label) * is_new).softmax(1)
    shown = float((one.label >= 3).double().mean())
    assert float((share * is_new).sum(1).mean()) == pytest.approx(shown, abs=1e-6)


def test_no_offset_where_only_one_side_was_shown():
    one = judged(10, 4)
    for column, label in ((0, one.label % 3 + 1), (3, one.label % 3)):
        is_new = torch.ones(10, 4) * (torch.arange(4) < column)
        assert fit_offset(one.parts[..., 0], is_new, label) == 0


@pytest.mark.parametrize("factor", [1e-3, 8.0, 100.0])
def test_a_large_scale_stops_the_search_nowhere_else(factor):
    """With a ridge of the levels alone, as for classes without pictures."""
    one, ridge = judged(), [0.0, 0.1, 0.1]
    scaled = Judged(one.parts * torch.tensor([factor, 1.0, 1.0]), one.label)
    weight, other = fit_weights([one], ridge).weights, fit_weights([scaled], ridge).weights
    back = other * torch.tensor([factor, 1.0, 1.0])
    torch.testing.assert_close(back, weight, rtol=1e-9, atol=1e-12)
