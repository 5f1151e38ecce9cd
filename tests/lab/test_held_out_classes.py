"""Ridges for new classes: a third of the classes has no part in what it is judged with."""

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from scipy.optimize import minimize_scalar

from lab import held_out_classes as lab
from lab import validate
from models.fit import deal_classes
from models.spotlighter.evidence import CAUTION, ROUNDS, Evidence, read
from models.spotlighter.memory import Written
from tests.conftest import CLASS_NAMES
from tests.models.spotlighter.test_evidence import Case, build, make_case
from tests.toy import NAMES, TOY_OPTIONS

THIRD, REST = [1, 4], [0, 2, 3, 5]


@pytest.mark.usefixtures("float64")
@torch.no_grad()
def test_rows_are_what_a_model_that_never_saw_the_third_gives_to_it(monkeypatch):
    """`auto` with the ridge of Spotlighter, the base, and the base at a scale found by a search."""
    monkeypatch.setattr(lab, "RIDGES", (CAUTION,))
    case = make_case(shots=4, seed=7)
    pictures = case.pictures()
    written, direction = read(case.model, pictures, [case.pictures(noise=0.3)])
    evidence = Evidence(case.model, pictures, written, direction)
    rows = {row["kind"]: row for row in lab.measure(evidence, torch.tensor(THIRD))}
    assert set(rows) == {"base", "scaled", "inherit", "text", "auto"}
    assert rows["auto"] | {"kind": ""} in [rows[k] | {"kind": ""} for k in ("inherit", "text")]

    place = torch.full((len(CLASS_NAMES),), -1)
    place[REST] = torch.arange(len(REST))
    seen = place[case.label] >= 0
    options = {key: value for key, value in case.options.items() if key != "is_pruned"}
    small = build([CLASS_NAMES[c] for c in REST], False, options).eval()
    small.base.learned.load_state_dict(case.model.base.learned.state_dict())
    less = Case(small, case.images[seen], place[case.label][seen], case.options)
    written = [one.of(seen) for one in written]
    written = [one._replace(label=place[one.label]) for one in written]
    every = Written(*(torch.cat(column) for column in zip(*written, strict=True)))
    small.head.memory.fill(every, direction)
    Evidence(small, less.pictures(), written, direction).fit()
    other = build([CLASS_NAMES[c] for c in THIRD], False, options).eval()
    other.learned.load_state_dict(small.learned.state_dict())

    images, label = case.images[~seen], (case.label[~seen] == THIRD[1]).long()
    base = other.base(images)
    of_rest = small.base(less.images)
    groups = []
    for group in deal_classes(len(REST), ROUNDS, seed=0):
        own = torch.isin(less.label, group)
        groups.append((of_rest[own][:, group], torch.searchsorted(group, less.label[own])))

    def nll(scale):
        losses = [F.cross_entropy(scale * z, y, reduction="sum") for z, y in groups]
        return float(sum(losses))

    scale = minimize_scalar(nll, bounds=(0, 10), method="bounded", options={"xatol": 1e-6}).x
    for kind, logits in {"auto": other(images), "base": base, "scaled": scale * base}.items():
        right = 100 * (logits.argmax(1) == label).double().mean()
        assert rows[kind]["accuracy"] == pytest.approx(float(right), abs=1e-3)
        assert rows[kind]["nll"] == pytest.approx(float(F.cross_entropy(logits, label)), abs=2e-5)


def test_every_class_is_in_one_third():
    thirds = lab.deal_thirds(25, seed=1)
    assert sorted(map(len, thirds)) == [8, 8, 9]
    assert torch.cat(thirds).sort().values.tolist() == list(range(25))
    assert not torch.equal(thirds[0], lab.deal_thirds(25, seed=2)[0])


def test_the_table_has_differences_of_the_same_third(tmp_path, monkeypatch, capsys):
    """Differences of 1, 2 and 6 points: 3 on average, standard error sqrt(7 / 3)."""
    gains, number = [1.0, 2.0, 6.0], iter(range(3))
    evidence = type("Some", (), {"classes": range(6), "label": torch.zeros(1)})

    def measure(evidence, third):
        n = next(number)
        yield {"kind": "base", "accuracy": 10.0 * n, "nll": 1.0 + n}
        yield {"kind": "text", "ridge": 0.1, "accuracy": 10.0 * n + gains[n], "nll": 0.5 + n}

    monkeypatch.setattr(lab, "evidence_of", lambda *_: evidence)
    monkeypatch.setattr(lab, "measure", measure)
    out = tmp_path / "new" / "rows.csv"
    assert lab.main(["emoji_food", "--output", str(out)]) == 0
    said = capsys.readouterr().out
    row = [cell.strip() for cell in said.splitlines()[2].split("|")[1:-1]]
    assert row == ["text", "0.1", "3.00", "1.53", "-0.5000", "0.0000"]
    assert "3 thirds; the base has 10.00 %, 2.000 nats" in said
    rows = pd.read_csv(out)
    assert rows.third.tolist() == [0, 0, 1, 1, 2, 2]
    assert rows.ridge.isna().tolist() == [True, False] * 3


def test_only_training_pictures_of_base_classes_are_read(toy_root, tmp_path, monkeypatch, capsys):
    files = {"datasets/toy": {"DATASET": {"NAME": "Toy"}}, "trainers/Spotlighter/tiny_emoji": {}}
    for key, value in TOY_OPTIONS.items():
        if not key.startswith("DATASET"):
            *nodes, last = key.split(".")
            node = files["trainers/Spotlighter/tiny_emoji"]
            for name in nodes:
                node = node.setdefault(name, {})
            node[last] = list(value) if isinstance(value, tuple) else value
    for name, content in files.items():
        path = tmp_path / "configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(validate, "PROJECT", tmp_path)
    assert lab.main(["toy", "--root", str(toy_root), "--output", str(tmp_path / "rows.csv")]) == 2
    assert "toy has 3 base classes; 6 are needed" in capsys.readouterr().err
    monkeypatch.setattr(lab, "LEAST_CLASSES", 3)
    evidence = lab.evidence_of("toy", 1, str(toy_root))
    assert evidence.names == NAMES[:3]
    assert evidence.label.bincount().tolist() == [6, 6, 6]  # all that there are
    assert len(evidence.written) == 1 + 4
