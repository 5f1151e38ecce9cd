"""Every prompt tuner, alone and under a Spotlighter head, in whole runs on a toy data set."""

import json

import pytest
import torch

from tests.trainers.test_published import FOLDER, publish  # noqa: F401  (a fixture)
from tests.tuners import BASES, TRAINER, TUNERS

BASE = {"DATASET__SUBSAMPLE_CLASSES": "base"}
NEW = {"DATASET__SUBSAMPLE_CLASSES": "new"}


def results(folder):
    return json.loads((folder / "results.json").read_text())


def saved(folder, trainer, epoch=2):
    path = folder / FOLDER.get(trainer, "prompt_learner") / f"model.pth.tar-{epoch}"
    return torch.load(path, weights_only=True)


def evaluate(folder):
    return ("--eval-only", "--model-dir", str(folder))


@pytest.mark.parametrize("trainer", TUNERS)
def test_base_to_new(run, tmp_path, trainer):
    run(trainer, "train", **BASE)
    run(trainer, "again", flags=evaluate(tmp_path / "train"), **BASE)
    run(trainer, "new", flags=evaluate(tmp_path / "train"), **NEW)
    train, again, new = (results(tmp_path / name) for name in ("train", "again", "new"))
    assert train["accuracy"] == again["accuracy"]
    assert (train["epoch"], new["epoch"], new["classes"], new["n"]) == (2, 2, "new", 15)
    state = saved(tmp_path / "train", trainer)["state_dict"]
    assert all(torch.isfinite(v).all() for v in state.values() if torch.is_tensor(v))
    assert train["learned_parameters"] > 0


@pytest.mark.parametrize("trainer", TUNERS)
@pytest.mark.parametrize("precision", ["bf16", "amp", "fp16"])
def test_precisions_on_the_cpu(run, tmp_path, trainer, precision):
    run(
        trainer,
        OPTIM__MAX_EPOCH=1,
        **{f"TRAINER__{TRAINER[trainer].node}__PREC": precision},
    )
    state = saved(tmp_path / "run", trainer, 1)["state_dict"]
    assert all(torch.isfinite(v).all() for v in state.values() if torch.is_tensor(v))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("fp16 is computed as fp32") == (precision == "fp16")


@pytest.mark.parametrize("base", BASES)
def test_spotlighter_on_every_base(run, tmp_path, base):
    options = {"TRAINER__SPOTLIGHTER__BASE": base}
    run("Spotlighter", "train", **BASE, **options)
    run("Spotlighter", "again", flags=evaluate(tmp_path / "train"), **BASE, **options)
    run("Spotlighter", "new", flags=evaluate(tmp_path / "train"), **NEW, **options)
    assert results(tmp_path / "train")["accuracy"] == results(tmp_path / "again")["accuracy"]
    assert results(tmp_path / "new")["n"] == 15
    state = saved(tmp_path / "train", "Spotlighter")["state_dict"]
    memory = {k: v for k, v in state.items() if k.startswith("head.memory.")}
    assert memory["head.memory.filled"]
    assert memory["head.memory.global_mass"].sum() == 60  # 12 pictures, four views of each


def test_a_checkpoint_on_another_base_is_refused(run, tmp_path):
    run("Spotlighter", "train", OPTIM__MAX_EPOCH=1)
    with pytest.raises(ValueError, match="was written with base CoOp, and this run has CoCoOp"):
        run(
            "Spotlighter",
            "other",
            flags=evaluate(tmp_path / "train"),
            TRAINER__SPOTLIGHTER__BASE="CoCoOp",
        )


# MODEL.PRUNE: fewer patches, the same keys for every trainer

PRUNE = {"MODEL__PRUNE__AT": "(0, 1)", "MODEL__PRUNE__KEEP": "(32, 8)"}


@pytest.mark.parametrize("trainer", ["CoOp", "MaPLe", "Spotlighter"])
def test_what_a_pruner_learned_is_saved(run, tmp_path, trainer):
    run(trainer, "train", OPTIM__MAX_EPOCH=1, **PRUNE, **BASE)
    run(trainer, "again", flags=evaluate(tmp_path / "train"), **PRUNE, **BASE)
    assert results(tmp_path / "train")["accuracy"] == results(tmp_path / "again")["accuracy"]
    state = saved(tmp_path / "train", trainer, 1)["state_dict"]
    prefix = "base." if trainer == "Spotlighter" else ""
    assert state[f"{prefix}pruner.calibrated"]
    assert state[f"{prefix}pruner.directions"].norm(dim=1) == pytest.approx([1, 1])


def test_zero_shot_clip_prunes_by_attention_alone(run, tmp_path):
    run("ZeroshotCLIP", **PRUNE)
    assert results(tmp_path / "run")["n"] == 30


def test_more_kept_patches_than_a_schedule_leaves_is_refused(run):
    with pytest.raises(ValueError, match=r"TOPK must lie in 1\.\.4 .* MODEL.PRUNE.KEEP, got 5"):
        run("Spotlighter", MODEL__PRUNE__AT="(1,)", MODEL__PRUNE__KEEP="(4,)")


def test_a_published_checkpoint_can_be_evaluated_with_pruning(publish, run, tmp_path):  # noqa: F811
    flags = publish("CoOp")
    run("CoOp", "eval", flags=flags, MODEL__BACKBONE__PRETRAINED=True, **PRUNE, **BASE)
    assert results(tmp_path / "eval")["n"] == 15


# PromptSRC: the mean over epochs

GPA = {"TRAINER__PROMPTSRC__GPA_MEAN": 2, "TRAINER__PROMPTSRC__GPA_STD": 1, "OPTIM__MAX_EPOCH": 3}


def test_promptsrc_saves_the_mean_over_epochs(run, tmp_path, monkeypatch):
    from runs.average import EpochAverage

    seen, add = [], EpochAverage.add

    def note(self, epoch):
        seen.append({n: p.detach().clone() for n, p in self.parameters.items()})
        add(self, epoch)

    monkeypatch.setattr(EpochAverage, "add", note)
    run("PromptSRC", TRAIN__CHECKPOINT_FREQ=1, **GPA)
    density = torch.distributions.Normal(2.0, 1.0).log_prob(torch.arange(1.0, 4.0)).exp()
    weights = density / density.sum()
    last = saved(tmp_path / "run", "PromptSRC", 3)["state_dict"]
    second = saved(tmp_path / "run", "PromptSRC", 2)["state_dict"]
    for name, value in last.items():
        mean = sum(w * state[name] for w, state in zip(weights, seen, strict=True))
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-6)
        assert torch.equal(second[name], seen[1][name])


def test_an_interrupted_promptsrc_goes_on_with_its_mean(run, tmp_path):
    for output in ("whole", "part"):
        run("PromptSRC", output, TRAIN__CHECKPOINT_FREQ=1, **GPA)
    folder = tmp_path / "part" / "VLPromptLearner"
    (folder / "model.pth.tar-3").unlink()
    (folder / "checkpoint").write_text("model.pth.tar-2\n")
    before = saved(tmp_path / "part", "PromptSRC", 2)["average"]
    run("PromptSRC", "part", TRAIN__CHECKPOINT_FREQ=1, **GPA)
    after = saved(tmp_path / "part", "PromptSRC", 3)["average"]
    assert all(before[name].abs().sum() > 0 for name in before)
    for name, total in saved(tmp_path / "whole", "PromptSRC", 3)["average"].items():
        assert torch.equal(after[name], total), name


# PromptKD: teachers, class names, unlabelled pictures


def distil(teacher_dir, **options):
    return {"TRAINER__PROMPTKD__TEACHER_DIR": str(teacher_dir)} | BASE | options


@pytest.mark.parametrize("teacher", ["CoOp", "PromptSRC", "TextRefiner", "ZeroshotCLIP"])
def test_a_run_of_any_trainer_can_teach(run, tmp_path, teacher):
    run(teacher, "teacher", OPTIM__MAX_EPOCH=1, **BASE)
    run("PromptKD", "student", OPTIM__MAX_EPOCH=1, **distil(tmp_path / "teacher"))
    found = results(tmp_path / "student")
    assert found["teacher"].startswith(f"{teacher} on tiny-emoji")
    assert saved(tmp_path / "student", "PromptKD", 1)["identity"]["teacher"] == found["teacher"]


def test_teachers_of_one_config_are_one_setting(run, tmp_path):
    """Each seed has a teacher of its own; one that was trained otherwise is another experiment."""
    key, found = "TRAINER.PROMPTKD.TEACHER_DIR", {}
    for name, epochs in (("seed1", 1), ("seed2", 1), ("longer", 2)):
        run("CoOp", f"teacher/{name}", OPTIM__MAX_EPOCH=epochs, **BASE)
        run("PromptKD", name, OPTIM__MAX_EPOCH=1, **distil(tmp_path / "teacher" / name))
        found[name] = results(tmp_path / name)["settings"][key]
    assert found["seed1"] == found["seed2"] != found["longer"]
    assert found["seed1"].startswith("CoOp:")
    taught, taken = (results(tmp_path / name) for name in ("teacher/seed1", "seed1"))
    assert taken["teacher"].endswith(f", {taught['learned']}")


def test_a_cocoop_teacher_is_refused(run, tmp_path):
    run("CoCoOp", "teacher", OPTIM__MAX_EPOCH=1, **BASE)
    with pytest.raises(ValueError, match="choose a teacher of another trainer"):
        run("PromptKD", "student", **distil(tmp_path / "teacher"))


def test_a_published_teacher_has_the_shape_of_its_checkpoint(publish, run, tmp_path):  # noqa: F811
    publish("PromptSRC", TRAINER__PROMPTSRC__N_CTX_VISION=3)
    options = distil(tmp_path / "theirs", MODEL__BACKBONE__PRETRAINED=True, OPTIM__MAX_EPOCH=1)
    run("PromptKD", "student", **options)
    assert results(tmp_path / "student")["teacher"].startswith("PromptSRC on tiny-emoji, ")


@pytest.mark.parametrize("shape", [(), (3,), (10**5, 2)])
def test_a_published_teacher_with_another_kind_of_prompt_is_refused(run, tmp_path, shape):
    path = tmp_path / "theirs" / "VLPromptLearner" / "model-best.pth.tar"
    path.parent.mkdir(parents=True)
    state = {"prompt_learner.ctx": torch.zeros(shape)}
    torch.save({"state_dict": state, "epoch": 20}, path)
    with pytest.raises(ValueError, match="the teacher's prompt has the shape"):
        run("PromptKD", "student", **distil(tmp_path / "theirs"))


def test_a_missing_teacher_says_what_to_do(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="leave it empty for zero-shot CLIP"):
        run("PromptKD", "student", **distil(tmp_path / "{dataset}"))


def test_a_student_of_another_teacher_is_refused(run, tmp_path):
    run("PromptKD", "student", OPTIM__MAX_EPOCH=1, **BASE)
    run("CoOp", "teacher", OPTIM__MAX_EPOCH=1, **BASE)
    with pytest.raises(ValueError, match="was written with teacher zero-shot tiny-emoji"):
        run(
            "PromptKD",
            "other",
            flags=evaluate(tmp_path / "student"),
            **distil(tmp_path / "teacher"),
        )


@pytest.mark.parametrize("trainer", ["PromptKD", "Spotlighter"])
def test_pictures_of_new_classes_are_used_only_on_request_and_the_result_says_so(
    run, tmp_path, monkeypatch, trainer
):
    from trainers.promptkd import PromptKDModel

    labels, target = [], PromptKDModel.target

    def note(self, image, label):
        labels.extend(label.tolist())
        return target(self, image, label)

    monkeypatch.setattr(PromptKDModel, "target", note)
    options = {"OPTIM__MAX_EPOCH": 1, "TRAINER__SPOTLIGHTER__BASE": "PromptKD"} | BASE
    run(trainer, "base", **options)
    assert set(labels) == {0, 1, 2}
    assert "transductive" not in results(tmp_path / "base")
    run(trainer, "all", TRAINER__PROMPTKD__TRANSDUCTIVE=True, **options)
    assert set(labels) == {0, 1, 2, 3, 4, 5}
    assert "new classes" in results(tmp_path / "all")["transductive"]


def test_training_knows_all_class_names_and_evaluation_only_its_own(run, tmp_path, monkeypatch):
    from models.classifier import CLIPClassifier

    shapes, classify = [], CLIPClassifier.classify

    def note(self, cls, text):
        shapes.append((self.training, len(text)))
        return classify(self, cls, text)

    monkeypatch.setattr(CLIPClassifier, "classify", note)
    run("PromptKD", "base2novel", OPTIM__MAX_EPOCH=1, **BASE)
    assert {s for s in shapes if s[0]} == {(True, 6)}
    assert (False, 3) in shapes
    shapes.clear()
    run("PromptKD", "cross", OPTIM__MAX_EPOCH=1, TRAINER__MODAL="cross", **BASE)
    assert {s for s in shapes if s[0]} == {(True, 3)}


def test_an_unknown_modal_is_refused(run):
    with pytest.raises(ValueError, match="MODAL must be one of base2novel, cross, got 'both'"):
        run("PromptKD", TRAINER__MODAL="both")


def test_the_published_base_to_new_command_reports_both_halves(run, tmp_path):
    every = {"DATASET__NUM_SHOTS": 0, "TRAINER__MODAL": "base2novel", "OPTIM__MAX_EPOCH": 1}
    run("PromptKD", "both", **every)
    whole = results(tmp_path / "both")
    assert (whole["classes"], whole["n"]) == ("all", 30)
    for half in ("base", "new"):
        flags = evaluate(tmp_path / "both")
        run("PromptKD", half, flags=flags, DATASET__SUBSAMPLE_CLASSES=half, **every)
        found, alone = results(tmp_path / "both" / half), results(tmp_path / half)
        for key in ("classes", "class_names", "accuracy", "macro_f1", "n", "shots", "seed"):
            assert found[key] == alone[key], key
        assert found["reliability"]["n"] == alone["reliability"]["n"]
        for key in ("nll", "ece"):  # the batches were others, so float32 rounded otherwise
            assert found[key] == pytest.approx(alone[key], rel=1e-4), key
        assert "unlabelled pictures of new classes" in found["transductive"]
    log = (tmp_path / "both" / "log.txt").read_text()
    assert log.index("base classes among themselves") < log.index("new classes among themselves")
    run("PromptKD", "few", TRAINER__MODAL="base2novel", OPTIM__MAX_EPOCH=1)
    assert not (tmp_path / "few" / "base").exists()
