"""GDA against its formulation, written out class by class on the authors' towers."""

import pytest
import torch

from lab.published.common import normalise
from models.fit import deal_shots
from tests.adapters import VIEWS, make_adapted, make_features
from tests.conftest import CLASS_NAMES, assert_close
from trainers.gda import ALPHAS

pytestmark = pytest.mark.usefixtures("float64")

SHOTS = (12, 13)
NUMBER = 3 * sum(SHOTS)
NEW = ["ship", "tall tree", "owl"]
CUT = torch.finfo(torch.float32).eps


def setting(towers, **settings):
    model = make_adapted("GDA", towers.clip, CLASS_NAMES, NUMBER + 2, VIEWS=VIEWS, **settings)
    return model, make_features(model.fixed, SHOTS)


def rows_of(features, pictures):
    """Unit features of all views of some pictures, and their classes."""
    rows, labels = [], []
    for view in features.views:
        for i in pictures:
            rows.append(view[i] / view[i].norm())
            labels.append(features.label[i].item())
    return rows, labels


def pinv(matrix):
    return torch.linalg.pinv(matrix, rtol=len(matrix) * CUT)


def mean_of(rows):
    return sum(rows) / len(rows)


def few_shot_inverse(rows, labels, means, number):
    """D ((n - 1) S + tr(S) I)^-1; S of these rows, n of the whole."""
    width = len(rows[0])
    total = torch.zeros(width, width)
    for row, label in zip(rows, labels, strict=True):
        total += torch.outer(row - means[label], row - means[label])
    spread = total / (len(rows) - 1)
    return width * pinv((number - 1) * spread + spread.trace() * torch.eye(width))


def base_to_new_inverse(rows, labels, means, number):
    covariances = []
    for c in means:
        own = [row for row, label in zip(rows, labels, strict=True) if label == c]
        covariances.append(torch.stack(own).T.cov())
    return pinv(mean_of(covariances))


INVERSES = {"ridge": few_shot_inverse, "mean": base_to_new_inverse}


def gaussians(rows, labels, kind, number):
    """For each class what a feature's part is."""
    classes = sorted(set(labels))
    means = {
        c: mean_of([r for r, label in zip(rows, labels, strict=True) if label == c])
        for c in classes
    }
    inverse = INVERSES[kind](rows, labels, means, number)
    return [part_of(means[c], inverse, len(classes)) for c in classes]


def part_of(mean, inverse, classes):
    bias = -torch.log(torch.tensor(float(classes))) - mean @ inverse @ mean / 2
    return lambda f: f @ inverse @ mean + bias


def new_gaussians(rows, text):
    """Synthesised classes: 64 nearest rows and 16 copies of the text feature."""
    means, inverses = [], []
    for t in text:
        near = sorted(rows, key=lambda row: (row @ t).item(), reverse=True)[:64]
        means.append(mean_of([*near, *[t] * 16]))
        spread = sum(torch.outer(row - t, row - t) for row in near) / 63
        matrix = 63 * spread + spread.trace() * torch.eye(len(t))
        inverses.append(len(t) * pinv(matrix))
    inverse = mean_of(inverses)
    return [part_of(mean, inverse, len(text)) for mean in means]


def logits_of(towers, images, text, parts, alpha):
    found = []
    for f in towers.image(images):
        f = f / f.norm()
        both = zip(text, parts, strict=True)
        found.append([towers.scale * (f @ t) + alpha * part(f) for t, part in both])
    return torch.tensor(found).log_softmax(1)  # ours leave out what all classes share


@pytest.mark.parametrize("kind", INVERSES)
def test_logits(towers, kind):
    """Of ALPHA as it is set, with two pictures that could not be read."""
    model, features = setting(towers, COVARIANCE=kind)
    images = towers.pictures(3)
    model.learned.fill(features)
    model.learned.set_weights(0.7)
    rows, labels = rows_of(features, range(NUMBER))
    parts = gaussians(rows, labels, kind, len(rows))
    expected = logits_of(towers, images, normalise(towers.class_text(CLASS_NAMES)), parts, 0.7)
    with torch.no_grad():
        assert_close(model(images).log_softmax(1), expected)


def test_logits_of_new_classes(towers):
    model, features = setting(towers)
    images = towers.pictures(3)
    model.learned.fill(features)
    model.learned.set_weights(0.7)
    new = make_adapted("GDA", towers.clip, NEW)
    new.learned.load_state_dict(model.learned.state_dict())
    rows, _ = rows_of(features, range(NUMBER))
    text = normalise(towers.class_text(NEW))
    expected = logits_of(towers, images, text, new_gaussians(rows, text), 0.7)
    with torch.no_grad():
        assert_close(new(images).log_softmax(1), expected)


@pytest.mark.parametrize("kind", INVERSES)
def test_a_fold_is_judged_by_gaussians_of_the_others(towers, kind):
    model, features = setting(towers, COVARIANCE=kind)
    evidence = model.evidence(features)
    fold = deal_shots(features.label)
    ((_, found),) = model.learned.held_out(evidence)
    for number in range(4):
        rows, labels = rows_of(features, (fold != number).nonzero().flatten().tolist())
        parts = gaussians(rows, labels, kind, NUMBER * VIEWS)
        out = features.plain[fold == number]
        expected = torch.stack([torch.stack([p(f) for p in parts]) for f in out])
        difference = found[fold == number] - expected
        assert_close(difference, difference.mean(1, keepdim=True).expand_as(difference))


def test_new_classes_are_judged_without_their_pictures(towers):
    """The half of the classes that is held out, and one fold of the others."""
    model, features = setting(towers)
    evidence, group = model.evidence(features), torch.tensor([1, 4, 5])
    known = ~torch.isin(features.label, group) & (evidence.fold != 2)
    rows, labels = rows_of(features, known.nonzero().flatten().tolist())
    own = dict(zip([0, 2, 3], gaussians(rows, labels, "ridge", NUMBER * VIEWS), strict=True))
    new = dict(zip([1, 4, 5], new_gaussians(rows, model.fixed[group]), strict=True))
    found = model.learned.judge(evidence, known, group)
    for one, pictures in ((own, found[:, list(own)]), (new, found[:, list(new)])):
        expected = torch.stack([torch.stack([p(f) for p in one.values()]) for f in features.plain])
        assert_close(pictures, expected - expected.mean(1, keepdim=True))


def test_the_search_takes_the_first_best_alpha(towers):
    model, features = setting(towers)
    seen = make_features(model.fixed, (6,), seed=5)
    rows, labels = rows_of(features, range(NUMBER))
    parts, hits = gaussians(rows, labels, "ridge", len(rows)), []
    for alpha in ALPHAS:
        logits = [
            [model.scale * (f @ t) + alpha * p(f) for t, p in zip(model.fixed, parts, strict=True)]
            for f in seen.plain
        ]
        hits.append((torch.tensor(logits).argmax(1) == seen.label).sum().item())
    model.fill(features)
    model.search(seen.plain, seen.label)
    expected = [1, ALPHAS[hits.index(max(hits))]]
    assert model.learned.weights.tolist() == model.learned.new_weights.tolist() == expected
