"""Trained runs as other programs use them, without their data set."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from inference.predictor import Prediction, SpotlighterPredictor
from models.spotlighter import KINDS
from runs import rng as random_states
from tests.toy import NAMES
from trainers import TRAINERS

BASE = NAMES[:3]
PRUNED = {"MODEL__PRUNE__AT": (1,), "MODEL__PRUNE__KEEP": (12,)}
from_run = SpotlighterPredictor.from_run


def pictures(toy_root, labels=(0, 1, 2)):
    """The test pictures of some classes, in the order of the split."""
    return [toy_root / "toy" / "images" / f"test_{c}_{i}.png" for c in labels for i in range(5)]


def predicted(folder, names=BASE):
    """The class that the run's own evaluation chose for each test picture."""
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    return [names[int(row["predicted"])] for row in rows]


@pytest.mark.parametrize("trainer", [t.__name__ for t in TRAINERS if "Zero" not in t.__name__])
def test_every_trainer_predicts_what_its_own_evaluation_said(trained, toy_root, trainer):
    predictor = from_run(trained(trainer))
    found = predictor.predict(pictures(toy_root))  # in the evaluation's batches: the same bits
    assert predictor.class_names == BASE
    assert [one.class_name for one in found] == predicted(trained(trainer))
    for one in found:
        assert one.top[0] == (one.class_name, one.probability)
        assert sum(p for _, p in one.top) == pytest.approx(1)
        assert [p for _, p in one.top] == sorted((p for _, p in one.top), reverse=True)
        assert (one.keep_indices is None) == (trainer != "Spotlighter")


def test_a_top_probability_below_the_threshold_is_unsure(trained, toy_root):
    predictor, some = from_run(trained("CoOp")), pictures(toy_root)[::5]
    plain = predictor.predict(some)
    assert not any(one.unsure for one in plain)
    exact = plain[0].probability
    found = predictor.predict(some, threshold=exact)
    assert [one.unsure for one in found] == [one.probability < exact for one in plain]
    assert not found[0].unsure, "at the threshold it is sure"
    assert [one.top for one in found] == [one.top for one in plain]
    assert all(one.unsure for one in predictor.predict(some, threshold=1))
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=rf"must lie in 0\.\.1, got {wrong}"):
            predictor.predict(some, threshold=wrong)


def test_equal_scores_go_to_the_first_class(trained, toy_root):
    """As in an evaluation."""
    predictor = from_run(trained("CoOp"), [f"class {c}" for c in range(40)])
    scores = torch.tensor([0.0, 3.0, 1.0, 3.0]).repeat(15, 10)
    predictor.model = lambda batch: scores[: len(batch)]
    for one in predictor.predict(pictures(toy_root), topk=25):
        order = [*range(1, 40, 2), *range(2, 20, 4)]
        assert [name for name, _ in one.top] == [f"class {c}" for c in order]


def test_logits_are_those_of_the_run(trained, toy_root):
    from inference.open import open_run

    trainer = open_run(trained("Spotlighter"), str(toy_root))
    with torch.no_grad():
        out = trainer.model.forward_all(next(iter(trainer.test_loader))["img"])
    found = from_run(trained("Spotlighter")).predict(pictures(toy_root), topk=2)
    for one, logits, kept in zip(found, out.logits, out.head.selection.indices, strict=True):
        assert one.probability == pytest.approx(float(logits.softmax(-1).max()), abs=1e-5)
        assert one.keep_indices == kept.tolist()
        assert len(one.top) == 2
    torch.testing.assert_close(torch.stack([f.sample_wise for f in found]), out.head.sample_wise)
    torch.testing.assert_close(
        torch.stack([f.semantic_wise for f in found]), out.head.semantic_wise
    )


def test_a_pruned_run_has_holes_in_its_maps(trained, toy_root):
    (one,) = from_run(trained("Spotlighter", **PRUNED)).predict(pictures(toy_root)[0])
    assert one.sample_wise.shape == one.semantic_wise.shape == (64,)
    assert int(one.sample_wise.isfinite().sum()) == 12
    assert one.sample_wise[one.keep_indices].isfinite().all()
    assert len(one.keep_indices) == 5


def test_files_pictures_and_tensors_give_the_same(trained, toy_root):
    predictor, paths = from_run(trained("Spotlighter")), pictures(toy_root)[:3]
    images = [Image.open(path) for path in paths]
    tensors = [torch.from_numpy(np.array(x)).permute(2, 0, 1).float() / 255 for x in images]
    expected = predictor.predict(paths, batch_size=1)  # the sums of a batch differ in last bits
    same(predictor.predict(images, batch_size=1), expected)
    same(predictor.predict([str(path) for path in paths], batch_size=1), expected)
    same(predictor.predict(torch.stack(tensors), batch_size=1), expected)
    same(predictor.predict(tensors[1]), expected[1:2])
    assert predictor.predict([]) == []
    assert predictor.open(torch.full((3, 1, 1), 0.5)).getpixel((0, 0)) == (128, 128, 128)
    assert torch.equal(predictor.seen(paths[0]), tensors[0].permute(1, 2, 0))
    assert predictor.predict(torch.rand(1, 50, 90))[0].class_name in BASE


def test_batches_of_another_size_give_the_same_in_their_order(trained, toy_root):
    predictor, paths = from_run(trained("CoOp")), pictures(toy_root)
    one_batch, several = (predictor.predict(paths, batch_size=size) for size in (32, 4))
    for one, other in zip(several, one_batch, strict=True):
        assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-5)


def same(found: list[Prediction], expected: list[Prediction]) -> None:
    assert [one.class_name for one in found] == [one.class_name for one in expected]
    assert [one.keep_indices for one in found] == [one.keep_indices for one in expected]
    chance = [[p for _, p in one.top] for one in found]
    torch.testing.assert_close(
        torch.tensor(chance), torch.tensor([[p for _, p in one.top] for one in expected])
    )


def test_new_classes_are_predicted_as_the_evaluation_on_new_classes_does(
    trained, run, toy_root, tmp_path
):
    flags = ("--eval-only", "--model-dir", str(trained("Spotlighter")))
    run("Spotlighter", flags=flags, DATASET__SUBSAMPLE_CLASSES="new")
    predictor = from_run(trained("Spotlighter"), NAMES[3:])
    found = predictor.predict(pictures(toy_root, (3, 4, 5)))
    assert [one.class_name for one in found] == predicted(tmp_path / "run", NAMES[3:])


def test_what_new_classes_get_is_the_runs_choice_unless_another_is_asked_for(trained, images):
    folder = trained("Spotlighter", TRAINER__SPOTLIGHTER__NEW="text")
    pixels = torch.nn.functional.interpolate(images, 64)
    logits = {}
    for new in ("", "auto", "inherit", "text", "off"):
        model = from_run(folder, ["bee", "ladder", "violin"], new=new).model
        with torch.no_grad():
            model.head.new_parts[: len(KINDS)] = 1  # three classes are too few to fit them
            model.head.new_offset.zero_()
            model.head.new_kind.fill_(KINDS.index("text"))
            logits[new], plain = model(pixels), model.base(pixels)
    assert torch.equal(logits[""], logits["text"])
    assert torch.equal(logits["auto"], logits["text"])
    torch.testing.assert_close(logits["off"][:, 1:], plain[:, 1:])  # the prompts alone
    for one, other in (("text", "inherit"), ("text", "off"), ("inherit", "off")):
        assert (logits[one] - logits[other])[:, 1:].abs().amax(0).min() > 1e-3


def test_a_run_without_a_checkpoint_has_its_classes_from_results_or_data(
    trained, toy_root, tmp_path
):
    folder = shutil.copytree(trained("ZeroshotCLIP"), tmp_path / "run")
    expected = predicted(folder)
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(
        json.dumps({k: v for k, v in results.items() if k != "class_names"})
    )
    with pytest.raises(FileNotFoundError, match=r"does not say what its classes are.*--classes"):
        from_run(folder)
    for kwargs in ({"root": toy_root}, {"class_names": BASE}):
        found = from_run(folder, **kwargs).predict(pictures(toy_root))
        assert [one.class_name for one in found] == expected
    (folder / "results.json").write_text(json.dumps(results | {"class_names": ["x", "y"]}))
    assert from_run(folder).class_names == ["x", "y"]


def test_a_class_specific_context_meets_no_other_classes(trained, toy_root):
    folder = trained("CoOp", TRAINER__COOP__CSC=True, TRAINER__COOP__CTX_INIT="")
    with pytest.raises(ValueError, match=r"a context for each of its 3 classes.*leave the class"):
        from_run(folder, ["cat", "dog"])
    assert from_run(folder, BASE).predict(pictures(toy_root)[0])


@pytest.mark.parametrize(
    ("folder", "kwargs", "sentence"),
    [
        ("Spotlighter", {"new": "none"}, "must be one of auto, inherit, text, off, got 'none'"),
        ("CoOp", {"new": "text"}, "a run of CoOp, which has no bank"),
        ("CoOp", {"class_names": ["cat", " "]}, "its name ' ' is empty"),
    ],
)
def test_a_wrong_wish_is_refused_in_a_sentence(trained, folder, kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_run(trained(folder), **kwargs)


def test_a_folder_without_a_run_or_without_a_checkpoint_is_refused(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not the output folder of a run"):
        from_run(tmp_path)
    folder = shutil.copytree(trained("CoOp"), tmp_path / "run")
    shutil.rmtree(folder / "prompt_learner")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        from_run(folder, ["cat"])


@pytest.mark.parametrize(
    "tensor",
    [torch.rand(2, 8, 8), torch.rand(3, 8, 8) * 255, torch.zeros(3, 8, 8).byte(), torch.rand(8, 8)],
)
def test_other_tensors_are_refused_in_a_sentence(trained, tensor):
    with pytest.raises(ValueError, match=r"a tensor must be \(3, H, W\).* in 0..1 .* got \("):
        from_run(trained("CoOp")).predict([tensor])


def test_scores_that_are_no_numbers_are_no_prediction(trained, images):
    predictor = from_run(trained("CoOp"))
    predictor.model.forward = lambda batch: torch.full((len(batch), 3), torch.nan)
    with pytest.raises(ValueError, match="are infinite or not a number, so there is no prediction"):
        predictor.predict(images[:1].sigmoid())


def test_unreadable_files_are_named(trained, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    predictor = from_run(trained("CoOp"))
    with pytest.raises(ValueError, match=r"broken.png cannot be read as a picture"):
        predictor.predict(tmp_path / "broken.png")
    with pytest.raises(FileNotFoundError, match=r"No picture at .*none.png"):
        predictor.predict(tmp_path / "none.png")
    with pytest.raises(ValueError, match="must be at least 1"):
        predictor.predict([], topk=0)


def test_opening_a_run_leaves_the_random_generators_as_they_were(trained):
    folder = trained("Spotlighter")
    before = json.loads(random_states.capture())
    from_run(folder)
    after = json.loads(random_states.capture())
    for state in (before, after):
        del state["python"]  # the checks of types draw from it
    assert before == after


@pytest.mark.parametrize("trainer", ["CoOp", "Spotlighter"])
def test_the_runs_temperature_divides_the_logits(trained, toy_root, trainer):
    """Shares p of classes at temperature T go as p ** (1 / T); zero-shot CLIP has its own."""
    paths = pictures(toy_root)
    plain, warm = (trained(trainer, TEST__TEMPERATURE=t) for t in (1.0, 2.5))
    both = (from_run(run).predict(paths) for run in (plain, warm))
    for one, other in zip(*both, strict=True):
        assert [name for name, _ in one.top] == [name for name, _ in other.top]
        powers = np.array([p for _, p in one.top]) ** (1 / 2.5)
        assert [p for _, p in other.top] == pytest.approx(powers / powers.sum(), abs=1e-5)
    own = [from_run(run, zero_shot=True).predict(paths[0])[0].top for run in (plain, warm)]
    assert own[0] == own[1]
