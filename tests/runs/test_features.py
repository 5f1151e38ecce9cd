"""Features of the frozen image tower that are computed once."""

import shutil

import pytest
import torch
from dassl.data.datasets import build_dataset
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from torch.utils.data import default_collate

import train
from runs import features, health
from runs.config import build_config
from runs.data import CachedDataset, build_transform
from runs.features import View
from tests.conftest import assert_close, in_dtype
from tests.trainers.test_runs import checkpoint, results
from tests.tuners import TRAINER, TUNERS, make_spotlighted, make_tuner, shake

TAKE = [name for name, trainer in TRAINER.items() if trainer.takes_features]
FROZEN = [name for name in TUNERS if name in TAKE]
AUGMENTED = {"INPUT__TRANSFORMS": ("random_resized_crop", "random_flip", "colorjitter", "cutout")}
VIEWS = AUGMENTED | {"FEATURES__VIEWS": 2}


def config(arguments, trainer="CoOp", **options):
    return build_config(train.parse_args(arguments(trainer, **options)))


def context(folder, epoch=2):
    return checkpoint(folder, epoch)["state_dict"]["ctx"]


def views(arguments, seed, number):
    cfg = config(arguments, **AUGMENTED)
    dataset = build_dataset(cfg).train_x
    return View(CachedDataset(cfg, dataset, build_transform(cfg), is_train=True), seed, number)


# The door


@pytest.mark.parametrize("name", FROZEN)
def test_features_give_the_logits_and_losses_of_their_pictures(name, clip_model, class_names):
    model = make_tuner(name, clip_model, class_names)
    shake(model.learned)
    model.train()
    picture, label = torch.randn(4, 3, 32, 32), torch.arange(4)
    seen = model.encode_raw(picture, model.step_patches)
    seen = seen if model.step_patches else seen.cls
    for key, loss in model.step(picture, label).losses.items():
        assert torch.equal(model.step(seen, label).losses[key], loss)
    model.eval()
    assert torch.equal(model(seen), model(picture))


def test_a_head_takes_all_tokens(clip_model, class_names, images):
    model = make_spotlighted("CoOp", clip_model, class_names).eval()
    seen = model.base.encode_raw(images, model.patch_path)
    assert torch.equal(model(seen), model(images))
    assert seen.to("cpu").cls is seen.cls


# FEATURES.VIEWS


def test_a_view_depends_on_seed_number_and_place_alone(arguments):
    first, again = views(arguments, 1, 0), views(arguments, 1, 0)
    expected = [first[i]["img"] for i in range(3)]
    torch.manual_seed(5)
    for i in (2, 0, 1):
        assert torch.equal(again[i]["img"], expected[i])
    for seed, number in ((2, 0), (1, 1)):
        assert not torch.equal(views(arguments, seed, number)[0]["img"], expected[0])
    assert torch.equal(views(arguments, -1, 0)[0]["img"], views(arguments, 0, 0)[0]["img"])


def trained(arguments, monkeypatch, batches=None, **options):
    """What a run in float64 has learned; `batches` may replace those of its `ViewLoader`."""
    if batches is not None:
        monkeypatch.setattr(features.ViewLoader, "__iter__", batches)
    cfg = config(arguments, TEST__NO_TEST=True, **options)
    set_random_seed(1)
    trainer = build_trainer(cfg)
    in_dtype(trainer.model, torch.float64)
    trainer.train()
    return [value.clone() for value in trainer.model.learned.state_dict().values()]


@pytest.mark.parametrize("name", ["CoOp", "CoCoOp", "TextRefiner"])
def test_as_many_views_as_epochs_train_as_fresh_ones(arguments, monkeypatch, name):
    """The loop draws each epoch's pictures anew, and they go through the tower in the step."""
    options = {"trainer": name, "OPTIM__MAX_EPOCH": 3, "FEATURES__VIEWS": 3} | AUGMENTED
    kept = trained(arguments, monkeypatch, output="kept", **options)

    def fresh(self):
        torch.empty((), dtype=torch.int64).random_()
        view = View(self.dataset, 1, self.state.epoch)
        for places in self.batch_sampler:
            states = torch.get_rng_state()
            batch = default_collate([view[place] for place in places])
            torch.set_rng_state(states)
            yield batch

    drawn = trained(arguments, monkeypatch, fresh, output="fresh", **options)
    assert len(kept) == len(drawn)
    for one, other in zip(kept, drawn, strict=True):
        assert_close(one, other)


def test_the_order_of_the_pictures_is_that_of_fresh_views(run, monkeypatch):
    """With workers, as published: they draw the augmentation."""
    files, numbers = {"kept": [], "fresh": []}, health.numbers_of_step

    def note(cfg, *args):
        files[name].append(args[-2])
        return numbers(cfg, *args)

    monkeypatch.setattr(health, "numbers_of_step", note)
    for name, count in (("kept", 2), ("fresh", 0)):
        options = {"OPTIM__MAX_EPOCH": 3, "DATALOADER__NUM_WORKERS": 2, "FEATURES__VIEWS": count}
        run("CoOp", name, TEST__NO_TEST=True, **AUGMENTED | options)
    assert len(files["kept"]) == 18
    assert files["kept"] == files["fresh"]


def test_epochs_go_round_the_views(arguments, monkeypatch):
    cfg = config(arguments, OPTIM__MAX_EPOCH=5, **VIEWS)
    trainer, seen = build_trainer(cfg), []
    trainer.start_epoch = 0
    trainer.before_train()
    for epoch in range(5):
        trainer.state.epoch = epoch
        batches = list(trainer.train_loader_x)
        place = torch.cat([batch["index"] for batch in batches]).argsort()
        seen.append(torch.cat([batch["img"] for batch in batches])[place])
        labels = torch.cat([batch["label"] for batch in batches])[place]
        assert labels.tolist() == [item.label for item in trainer.dm.dataset.train_x]
    trainer.close_writer()
    assert seen[0].shape == (24, 128)
    for epoch in (2, 3, 4):
        assert torch.equal(seen[epoch], seen[epoch % 2])
    assert not torch.isclose(seen[0], seen[1]).all(1).any()


def test_fewer_views_are_the_first_of_more(arguments):
    pairs = []
    for count in (1, 2):
        cfg = config(arguments, **VIEWS | {"FEATURES__VIEWS": count})
        set_random_seed(1)
        trainer = build_trainer(cfg)
        args = (cfg, trainer.state, trainer.model, trainer.train_loader_x)
        pairs.append(features.ViewLoader(*args).views)
    assert [len(pair) for pair in pairs] == [1, 2]
    assert torch.equal(pairs[0][0].tokens.cls, pairs[1][0].tokens.cls)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_with_the_same_views(run, tmp_path, workers):
    options = VIEWS | {"OPTIM__MAX_EPOCH": 3, "DATALOADER__NUM_WORKERS": workers}
    run("CoOp", "whole", **options)
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    folder = tmp_path / "part" / "prompt_learner"
    run("CoOp", "part2", TRAIN__CHECKPOINT_FREQ=1, **options)
    shutil.copy(tmp_path / "part2" / "prompt_learner" / "model.pth.tar-1", folder)
    (folder / "model.pth.tar-3").unlink()
    (folder / "checkpoint").write_text("model.pth.tar-1\n")
    run("CoOp", "part", **options)
    assert torch.equal(context(tmp_path / "part", 3), context(tmp_path / "whole", 3))
    assert results(tmp_path / "part")["settings"]["FEATURES.VIEWS"] == 2


def test_the_log_says_what_was_kept(run, tmp_path):
    run("CoOp", OPTIM__MAX_EPOCH=1, **VIEWS)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Encoded 1 views of 24 training pictures (FEATURES.VIEWS)" in log  # one epoch needs one
    run("TextRefiner", "local", **VIEWS)
    log = (tmp_path / "local" / "log.txt").read_text()
    assert "Encoded 2 views of 24 training pictures (FEATURES.VIEWS)" in log


@pytest.mark.parametrize("trainer", TRAINER)
def test_only_frozen_towers_have_views(arguments, trainer):
    """A head has its base's tower."""
    if trainer in (*TAKE, "Spotlighter"):
        config(arguments, trainer, **VIEWS)
        return
    for options in ({"trainer": trainer}, {"trainer": "Spotlighter", "base": trainer}):
        base = options.pop("base", "")
        more = {"TRAINER__SPOTLIGHTER__BASE": base} if base else {}
        if base and not TRAINER[base].takes_head:
            continue
        with pytest.raises(ValueError, match=r"frozen image tower, which .* does not have"):
            config(arguments, **options, **more, **VIEWS)


def test_a_method_that_does_not_say_so_keeps_nothing():
    for name in TUNERS:
        assert TRAINER[name].takes_features == (name in FROZEN)
    learn = {"MaPLe", "IVLP", "VPT", "PromptSRC", "PromptKD"}
    assert not learn & set(TAKE)


def test_without_training_views_are_without_effect(run, tmp_path):
    run("ZeroshotCLIP", FEATURES__VIEWS=2)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "FEATURES.VIEWS (nothing is trained in steps)" in log


@pytest.mark.parametrize("skip", [True, False])
def test_a_picture_that_cannot_be_read(run, fails, toy_root, tmp_path, skip):
    root = shutil.copytree(toy_root, tmp_path / "data")
    for picture in (root / "toy" / "images").glob("train_0_*"):
        picture.write_bytes(b"")
    options = VIEWS | {"flags": ("--root", str(root)), "DATALOADER__SKIP_UNREADABLE": skip}
    if not skip:
        assert "SKIP_UNREADABLE True goes on" in fails("CoOp", **options)
        return
    run("CoOp", **options)
    assert results(tmp_path / "run")["unreadable"] == {"train": 4, "val": 0, "test": 0}
