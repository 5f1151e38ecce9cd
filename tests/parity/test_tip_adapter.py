"""Tip-Adapter against its formulation, written out picture by picture on the authors' towers."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar

from lab.published.common import normalise
from models.fit import FOLDS, ROUNDS, Judged, deal_classes, deal_shots, fit_weights
from tests.adapters import make_adapted, make_features
from tests.conftest import CLASS_NAMES, assert_close
from trainers.tip_adapter import BETAS

pytestmark = pytest.mark.usefixtures("float64")

SHOTS = (3, 4, 1)
NUMBER = 2 * sum(SHOTS)


def dot(one, other):
    return sum(a * b for a, b in zip(one.tolist(), other.tolist(), strict=True))


def key_of(views):
    """The unit-length mean of the views of one picture, as the tower gives them."""
    mean = sum(views) / len(views)
    return mean / math.sqrt(dot(mean, mean))


def votes(f, keys, labels, beta, classes, weight=lambda i: 1.0):
    found = [0.0] * classes
    for i, (key, label) in enumerate(zip(keys, labels, strict=True)):
        found[label] += weight(i) * math.exp(-beta * (1 - dot(f, key)))
    return found


def setting(towers, **settings):
    model = make_adapted("TipAdapter", towers.clip, CLASS_NAMES, NUMBER + 2, **settings)
    features = make_features(model.fixed, SHOTS)
    keys = [key_of(features.views[:, i]) for i in range(NUMBER)]
    return model, features, keys


def test_logits(towers):
    """Of ALPHA and BETA as they are set, with two pictures that could not be read."""
    model, features, keys = setting(towers)
    images = towers.pictures(3)
    model.learned.fill(features)
    model.learned.set_weights(1.7)
    model.learned.take(5.5)
    text, expected = normalise(towers.class_text(CLASS_NAMES)), []
    for f in towers.image(images):
        f = f / f.norm()
        vote = votes(f, keys, features.label.tolist(), 5.5, len(text))
        both = zip(text, vote, strict=True)
        expected.append([towers.scale * dot(f, t) + 1.7 * v for t, v in both])
    with torch.no_grad():
        assert_close(model(images), torch.tensor(expected))


def test_cross_fitting_asks_the_pictures_of_other_folds(towers):
    model, features, keys = setting(towers)
    label, fold = features.label.tolist(), deal_shots(features.label).tolist()
    classes, found = len(CLASS_NAMES), {}
    judged = [i for i in range(NUMBER) if fold[i] >= 0]
    base = [[model.scale.item() * dot(features.plain[i], t) for t in model.fixed] for i in judged]
    for beta in BETAS:
        parts = []
        for i in judged:
            others = [j for j in range(NUMBER) if fold[j] != fold[i]]
            vote = votes(
                *(features.plain[i], [keys[j] for j in others], [label[j] for j in others]),
                *(beta, classes),
            )
            kept = [sum(label[j] == c for j in others) for c in range(classes)]
            parts.append([v * label.count(c) / kept[c] for c, v in enumerate(vote)])
        both = torch.stack([torch.tensor(base), torch.tensor(parts)], -1)
        found[beta] = fit_weights([Judged(both, features.label[judged])])
    best = min(BETAS, key=lambda beta: found[beta].nll)
    model.fill(features)
    model.fit(features)
    assert model.learned.beta == best
    torch.testing.assert_close(model.learned.weights, found[best].weights, rtol=1e-5, atol=1e-7)
    assert found[best].weights[1] > 0


def test_the_offset_is_fitted_to_halves_of_the_classes_without_votes(towers):
    """Each half stands for new classes once; one fold is judged, by the votes of the others."""
    model, features, keys = setting(towers)
    model.fill(features)
    model.fit(features)
    label, fold = features.label.tolist(), deal_shots(features.label).tolist()
    (of_base, of_part), beta = model.learned.weights.tolist(), model.learned.beta.item()
    classes, judged = len(CLASS_NAMES), []
    for number, half in enumerate(deal_classes(classes, ROUNDS, seed=0)):
        new = half.tolist()
        for i in (i for i in range(NUMBER) if fold[i] == number % FOLDS):
            others = [j for j in range(NUMBER) if fold[j] != fold[i] and label[j] not in new]
            mine = [[keys[j] for j in others], [label[j] for j in others]]
            vote = votes(features.plain[i], *mine, beta, classes)
            kept = [max(1, sum(label[j] == c for j in others)) for c in range(classes)]
            logits = [
                of_base * model.scale.item() * dot(features.plain[i], t)
                + of_part * vote[c] * label.count(c) / kept[c]
                for c, t in enumerate(model.fixed)
            ]
            judged.append((logits, new, label[i]))

    def loss(offset):
        found = 0.0
        for logits, new, true in judged:
            moved = [z + offset * (c in new) for c, z in enumerate(logits)]
            found += math.log(sum(map(math.exp, moved))) - moved[true]
        return found

    best = minimize_scalar(loss, bounds=(-50, 50), method="bounded", options={"xatol": 1e-9})
    assert model.learned.new_offset.item() == pytest.approx(best.x, abs=1e-5)
    assert best.x > 0.1


def test_the_search_takes_the_first_best_pair(towers):
    model, features, keys = setting(towers, SEARCH_SCALE=(9.0, 6.0), SEARCH_STEP=(7, 5))
    seen = make_features(model.fixed, (4,), seed=5)
    label, best, chosen = features.label.tolist(), -1, None
    for i in range(7):
        beta = 0.1 + i * (9 - 0.1) / 7
        for j in range(5):
            alpha, hits = 0.1 + j * (6 - 0.1) / 5, 0
            for f, true in zip(seen.plain, seen.label.tolist(), strict=True):
                vote = votes(f, keys, label, beta, len(CLASS_NAMES))
                logits = [
                    model.scale.item() * dot(f, t) + alpha * v
                    for t, v in zip(model.fixed, vote, strict=True)
                ]
                hits += logits.index(max(logits)) == true
            if hits > best:
                best, chosen = hits, (beta, alpha)
    model.fill(features)
    model.search(seen.plain, seen.label)
    assert (model.learned.beta.item(), model.learned.weights[1].item()) == pytest.approx(chosen)
    assert model.learned.weights[0] == 1


def test_k_is_trained_as_published(towers):
    """Three steps of AdamW on K alone, by gradients that are written out."""
    settings = {"lr": 0.01, "weight_decay": 0.01, "eps": 1e-4}
    model = make_adapted("TipAdapterF", towers.clip, CLASS_NAMES, NUMBER + 2).train()
    features = make_features(model.fixed, SHOTS)
    model.fill(features)
    model.learned.set_weights(1.7)
    keys = torch.stack([key_of(features.views[:, i]) for i in range(NUMBER)]).requires_grad_()
    images, label = towers.pictures(4), torch.tensor([0, 3, 3, 5])
    text, seen = (normalise(x) for x in (towers.class_text(CLASS_NAMES), towers.image(images)))
    ours = torch.optim.AdamW([model.learned.keys], **settings)
    theirs = torch.optim.AdamW([keys], **settings)
    own = [(features.label == c).nonzero().flatten().tolist() for c in range(len(text))]
    for _ in range(3):
        losses = []
        for f, true in zip(seen, label.tolist(), strict=True):
            vote = [sum((5.5 * (keys[i] @ f - 1)).exp() for i in pictures) for pictures in own]
            logits = [towers.scale * (f @ t) + 1.7 * v for t, v in zip(text, vote, strict=True)]
            losses.append(torch.stack(logits).logsumexp(0) - logits[true])
        step = model.step(images, label)
        assert_close(step.losses["ce"], sum(losses) / 4)
        for optimiser, loss in ((ours, step.losses["ce"]), (theirs, sum(losses) / 4)):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert_close(model.learned.keys[:NUMBER], keys)
    assert sum(p.requires_grad for p in model.parameters()) == 1
