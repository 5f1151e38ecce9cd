"""Parts of Spotlighter and GDA side by side: those of the run, of slow Gaussians, and the table."""

import json

import numpy as np
import pytest
import torch

from lab import gda_level as lab
from lab.validate import batches
from models.fit import fit_weights
from runs import rng

SPOTLIGHTER = lab.ROWS["base + global level + patch levels"]
COLUMNS = [lab.PARTS.index(name) for name in SPOTLIGHTER]


@pytest.fixture
def both(run, tmp_path):
    run("Spotlighter", OPTIM__MAX_EPOCH=1, DATASET__SUBSAMPLE_CLASSES="base", TRAINER__GDA__VIEWS=2)
    return lab.open_both(tmp_path / "run", "")


@torch.no_grad()
def test_the_fit_to_the_parts_of_spotlighter_is_that_of_the_run(both):
    """The same pictures, views and folds: float32 parts of other batches, 1e-3 of a weight."""
    judged = lab.held_out(*both)
    found = fit_weights([one._replace(parts=one.parts[..., COLUMNS]) for one in judged])
    head = both[0].model.head
    expected = torch.stack([head.base, *head.level])
    assert expected.count_nonzero() > 1
    torch.testing.assert_close(found.weights.float(), expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_gda_of_a_fold_is_that_of_gaussians_without_it(both):
    """Means, covariance and densities by NumPy; the features are float32, so 1e-3 of the spread."""
    judged = lab.held_out(*both)
    with rng.seeded(1):
        features = both[1].features()
    views, plain, label = (x.double().numpy() for x in features)
    views /= np.linalg.norm(views, axis=-1, keepdims=True)
    label = label.astype(int)
    turn = np.array([(label[:n] == one).sum() for n, one in enumerate(label)])
    width, number = plain.shape[1], views.shape[0] * len(label)
    for fold, one in enumerate(judged):
        known, judges = turn % 4 != fold, turn % 4 == fold
        means = [views[:, known & (label == c)].reshape(-1, width).mean(0) for c in range(3)]
        off = np.concatenate([views[:, n] - means[label[n]] for n in np.flatnonzero(known)])
        covariance = off.T @ off / (len(off) - 1)
        ridge = np.trace(covariance) * np.eye(width)
        inverse = width * np.linalg.inv((number - 1) * covariance + ridge)
        part = np.stack([plain[judges] @ inverse @ m - m @ inverse @ m / 2 for m in means], 1)
        part -= part.mean(1, keepdims=True)
        assert one.label.tolist() == label[judges].tolist()
        np.testing.assert_allclose(one.parts[..., -1], part, atol=1e-3 * part.std())


@torch.no_grad()
def test_parts_of_test_pictures_are_those_of_both_models(both):
    spotlighter, gda = both
    lab.held_out(*both)
    found = lab.tested(*both)
    head, learned = spotlighter.model.head, gda.model.learned
    learned.weights.copy_(torch.tensor([0.0, 1.0]))
    gda.model.clear_cache()
    images = [image for image, _ in batches(spotlighter, spotlighter.dm.dataset.test)]
    logits = torch.cat([spotlighter.model(image) for image in images])
    of_gda = torch.cat([gda.model(image) for image in images])
    own = found.parts[..., COLUMNS] @ torch.stack([head.base, *head.level])
    torch.testing.assert_close(own, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.parts[..., -1], of_gda, rtol=1e-4, atol=1e-4)
    assert found.label.bincount().tolist() == [5, 5, 5]


def test_a_run_is_judged_as_it_was_tested(both, tmp_path, capsys):
    """Spotlighter's row has the run's own accuracy and nll."""
    assert lab.main([str(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {row[1].strip(): row[2:4] for row in (line.split("|") for line in lines[2:])}
    assert list(rows) == list(lab.ROWS)
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    accuracy, nll = map(float, rows["base + global level + patch levels"])
    assert accuracy == pytest.approx(record["accuracy"], abs=0.01)
    assert nll == pytest.approx(record["nll"], abs=1e-3)


def test_the_table_has_means_and_differences_on_the_same_pictures(monkeypatch, capsys):
    """Two sets and seeds: 1 point and -0.1 nats more in one row; 2, 4 in another, by the seed."""
    random = np.random.default_rng(0)

    def measure(folder, root):
        name, seed = folder.name.split("-")
        scores = np.repeat(random.random((1, 2, 50)), len(lab.ROWS), axis=0)
        scores[:, 0] += 50 - scores[:, 0].mean()
        scores[2] += [[1.0], [-0.1]]
        scores[3, 0] += 2.0 * int(seed)
        return (name, int(seed)), scores

    monkeypatch.setattr(lab, "measure", measure)
    assert lab.main(["A-1", "A-2", "B-1", "B-2"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [row[0] for row in cells] == list(lab.ROWS)
    assert [row[1] for row in cells] == ["50.00", "50.00", "51.00", "53.00", "50.00", "50.00"]
    assert cells[1][3:] == ["", ""]
    assert cells[2][3:] == ["+1.00 [+1.00, +1.00]", "-0.1000 [-0.1000, -0.1000]"]
    assert cells[3][3] == "+3.00 [+2.00, +4.00]"
    assert lab.main(["A-1", "A-2", "B-1"]) == 2
    assert "needs a run of the same seeds, got A seed 1, A seed 2, B seed 1" in (
        capsys.readouterr().err
    )


def test_an_interval_of_one_seed_is_that_of_a_mean_over_pictures():
    """For a mean of 2500 numbers, 1.96 standard errors; the bootstrap's own error is some 5 %."""
    own = torch.randn(2, 1, 2500, generator=torch.Generator().manual_seed(0)).double().numpy()
    cell = lab.differences(own)[1]
    mean, low, high = (float(word.strip("[],")) for word in cell.split())
    error = 1.96 * own[1].std() / 50
    assert mean == pytest.approx(own[1].mean(), abs=1e-4)
    assert mean - low == pytest.approx(error, rel=0.1)
    assert high - mean == pytest.approx(error, rel=0.1)


def test_what_cannot_be_compared_is_refused(run, tmp_path, capsys):
    options = {"OPTIM__MAX_EPOCH": 1, "DATASET__SUBSAMPLE_CLASSES": "base"}
    run("CoOp", **options)
    assert lab.main([str(tmp_path / "run")]) == 2
    assert "is a run of CoOp, which selects no patches" in capsys.readouterr().err
    run("Spotlighter", output="one", DATASET__NUM_SHOTS=1, TRAINER__GDA__VIEWS=1, **options)
    assert lab.main([str(tmp_path / "one")]) == 2
    assert "a class has one shot; give runs with two or more" in capsys.readouterr().err
