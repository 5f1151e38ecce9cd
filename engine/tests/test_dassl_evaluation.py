import pytest
import torch
from dassl.evaluation import EVALUATOR_REGISTRY, build_evaluator

# Ten classes, of which labels 0..5 occur and some pictures are taken for others.
TRUE = [0, 0, 0, 1, 1, 2, 3, 3, 4, 5]
PREDICTED = [0, 0, 1, 1, 2, 2, 3, 7, 4, 4]


def evaluated(cfg, **kwargs):
    cfg.TEST.EVALUATOR = "Classification"
    evaluator = build_evaluator(cfg, lab2cname={i: f"name {i}" for i in range(10)}, **kwargs)
    evaluator.reset()
    scores = torch.nn.functional.one_hot(torch.tensor(PREDICTED), 10).float()
    for part in (slice(0, 4), slice(4, 10)):
        evaluator.process(scores[part], torch.tensor(TRUE)[part])
    return evaluator.evaluate()


def macro_f1_of_the_definition():
    f1 = []
    for label in sorted(set(TRUE)):
        pairs = list(zip(TRUE, PREDICTED, strict=True))
        both = sum(t == p == label for t, p in pairs)
        precision = both / max(sum(p == label for p in PREDICTED), 1)
        recall = both / sum(t == label for t in TRUE)
        f1.append(0 if both == 0 else 2 * precision * recall / (precision + recall))
    return 100 * sum(f1) / len(f1)


def test_results_and_their_order(cfg):
    results = evaluated(cfg)
    assert list(results) == ["accuracy", "error_rate", "macro_f1"]
    assert results["accuracy"] == pytest.approx(60.0)
    assert results["error_rate"] == pytest.approx(40.0)
    assert results["macro_f1"] == pytest.approx(macro_f1_of_the_definition())


def test_macro_f1_is_that_of_scikit_learn(cfg):
    metrics = pytest.importorskip("sklearn.metrics")
    expected = metrics.f1_score(TRUE, PREDICTED, average="macro", labels=sorted(set(TRUE)))
    assert evaluated(cfg)["macro_f1"] == pytest.approx(100 * expected)


def test_the_lines_that_old_parsers_search_for(cfg, capsys):
    evaluated(cfg)
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("=> result")
    assert lines[start + 1 : start + 6] == [
        "* total: 10",
        "* correct: 6",
        "* accuracy: 60.0%",
        "* error: 40.0%",
        f"* macro_f1: {macro_f1_of_the_definition():.1f}%",
    ]


def test_thousands_have_a_comma(cfg, capsys):
    evaluator = build_evaluator(cfg, lab2cname={0: "a", 1: "b"})
    evaluator.process(torch.tensor([[1.0, 0.0]]).repeat(1234, 1), torch.zeros(1234).long())
    evaluator.evaluate()
    assert "* total: 1,234\n* correct: 1,234\n* accuracy: 100.0%" in capsys.readouterr().out


def test_results_per_class(cfg, capsys):
    cfg.TEST.PER_CLASS_RESULT = True
    results = evaluated(cfg)
    average = (100 * 2 / 3 + 50 + 100 + 50 + 100 + 0) / 6
    assert results["perclass_accuracy"] == pytest.approx(average)
    shown = capsys.readouterr().out
    assert "=> per-class result" in shown
    assert "* class: 1 (name 1)\ttotal: 2\tcorrect: 1\tacc: 50.0%" in shown
    assert f"* average: {average:.1f}%" in shown


def test_confusion_matrix_is_saved_with_rows_of_one(cfg, tmp_path):
    cfg.TEST.COMPUTE_CMAT = True
    evaluated(cfg)
    matrix = torch.as_tensor(torch.load(tmp_path / "out" / "cmat.pt", weights_only=False))
    assert matrix.shape == (7, 7)  # labels 0..5 and 7, which is only predicted
    assert matrix[0, 0].item() == pytest.approx(2 / 3)
    assert matrix[0, 1].item() == pytest.approx(1 / 3)
    assert matrix.sum(dim=1).tolist() == pytest.approx([1] * 6 + [0])


def test_another_evaluator_can_be_registered(cfg):
    @EVALUATOR_REGISTRY.register(force=True)
    class Mine:
        def __init__(self, cfg, lab2cname=None, **kwargs):
            self.lab2cname = lab2cname

    cfg.TEST.EVALUATOR = "Mine"
    assert build_evaluator(cfg, lab2cname={0: "a"}).lab2cname == {0: "a"}
