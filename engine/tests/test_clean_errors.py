"""Errors written for the person who caused them."""

import pytest
import torch
from dassl.config import get_cfg_default
from dassl.data import DataManager, DatasetWrapper
from dassl.data.datasets import DatasetBase, Datum, build_dataset
from dassl.data.samplers import build_sampler
from dassl.data.transforms import build_transform
from dassl.engine import TrainerBase, build_trainer
from dassl.evaluation import build_evaluator
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import check_availability, count_num_param, read_image


def test_an_unknown_name_lists_the_known_ones_and_suggests_the_nearest():
    with pytest.raises(
        ValueError,
        match=r'^"coop" is not a registered trainer; available: \[\'CoOp\', \'MaPLe\'\]; '
        r'did you mean "CoOp"\?$',
    ):
        check_availability("coop", ["CoOp", "MaPLe"], "trainer")
    with pytest.raises(ValueError, match=r"available: \[\]$"):
        check_availability("coop", [])


@pytest.mark.parametrize(
    ("key", "build", "message"),
    [
        ("TRAINER.NAME", build_trainer, 'registered trainer; .*mean "ToyCoOp"'),
        ("DATASET.NAME", build_dataset, 'registered dataset; .*mean "ToyColours"'),
        ("TEST.EVALUATOR", build_evaluator, 'registered evaluator; .*mean "Classification"'),
        ("INPUT.INTERPOLATION", build_transform, r"INPUT\.INTERPOLATION"),
        ("DATALOADER.TRAIN_X.SAMPLER", DataManager, 'mean "RandomSampler"'),
    ],
)
def test_a_wrong_name_in_the_config(cfg, key, build, message):
    wrong = {"TRAINER.NAME": "ToyCop", "DATASET.NAME": "ToyColour", "TEST.EVALUATOR": "classif"}
    cfg.merge_from_list([key, wrong.get(key, "Randomsampler")])
    with pytest.raises(ValueError, match=message):
        build(cfg)


def test_an_unknown_transform(cfg):
    with pytest.raises(ValueError, match=r'"flip" is not a registered transform .*"random_flip"'):
        build_transform(cfg, choices=["flip"])


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        (["NAME", "sdg"], ValueError, 'did you mean "sgd"'),
        (["LR_SCHEDULER", "cosin"], ValueError, 'did you mean "cosine"'),
        (["WARMUP_EPOCH", 1, "WARMUP_TYPE", "const"], ValueError, 'mean "constant"'),
        (["STEPSIZE", (2.5,)], TypeError, "whole number of epochs, got 2.5"),
        (["STAGED_LR", True, "NEW_LAYERS", ("hed",)], ValueError, r"OPTIM\.NEW_LAYERS"),
    ],
)
def test_a_wrong_optimiser_setting(keys, error, message):
    cfg = get_cfg_default().OPTIM
    cfg.merge_from_list(keys)
    with pytest.raises(error, match=message):
        build_lr_scheduler(build_optimizer(torch.nn.Linear(1, 1), cfg), cfg)


def test_wrong_kinds_for_the_optimiser():
    cfg = get_cfg_default().OPTIM
    cfg.STAGED_LR = True
    with pytest.raises(TypeError, match=r"needs a module .*got list"):
        build_optimizer([torch.nn.Parameter(torch.ones(1))], cfg)
    cfg = get_cfg_default().OPTIM
    cfg.LR_SCHEDULER, cfg.STEPSIZE = "multi_step", 3
    with pytest.raises(TypeError, match="must be a list of epochs, got 3"):
        build_lr_scheduler(build_optimizer(torch.nn.Linear(1, 1), cfg), cfg)


def test_given_groups_win_over_staged_rates_with_a_word(capsys):
    cfg = get_cfg_default().OPTIM
    cfg.STAGED_LR = True
    layer = torch.nn.Linear(1, 1)
    build_optimizer(layer, cfg, param_groups=[{"params": [layer.bias]}])
    assert "STAGED_LR is ignored" in capsys.readouterr().out


def test_pictures_that_are_missing_or_broken(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No picture at .*check DATASET\.ROOT"):
        read_image(tmp_path / "none.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.png cannot be read as a picture"):
        read_image(tmp_path / "broken.png")
    (tmp_path / "program.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(ValueError, match="cannot identify image file"):
        read_image(tmp_path / "program.png")


def test_a_data_set_without_training_pictures():
    with pytest.raises(ValueError, match="DatasetBase has no labelled training pictures"):
        DatasetBase(train_x=[])


def test_views_without_a_transform(cfg):
    cfg.DATALOADER.K_TRANSFORMS = 2
    with pytest.raises(ValueError, match=r"K_TRANSFORMS is 2, but there is no transform"):
        DatasetWrapper(cfg, [Datum(__file__)], transform=None, is_train=True)


@pytest.mark.parametrize(
    ("sampler", "batch", "message"),
    [
        ("RandomDomainSampler", 3, "BATCH_SIZE 3 must be a multiple of the 2 domains"),
        ("SeqDomainSampler", 10, "takes 5 pictures of a domain, but one has only 2"),
        ("RandomClassSampler", 8, r"asks for 4 classes in a batch; it must lie in 1\.\.1"),
    ],
)
def test_batches_that_cannot_be_filled(sampler, batch, message):
    source = [Datum(__file__, domain=i % 2) for i in range(4)]
    with pytest.raises(ValueError, match=message):
        build_sampler(sampler, data_source=source, batch_size=batch, n_ins=2)


def test_models_that_cannot_be_registered():
    trainer = TrainerBase()
    trainer.register_model("m", torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"register_model\('m'\) .* already registered"):
        trainer.register_model("m", torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="but it is None"):
        trainer.register_model("n")
    with pytest.raises(ValueError, match='"n" is not a registered model'):
        trainer.get_model_names("n")
    with pytest.raises(ValueError, match=r'"trian" is not a registered mode; .*"train"'):
        trainer.set_model_mode("trian")

    class Forgetful(TrainerBase):
        def __init__(self):
            self.register_model("m", torch.nn.Linear(1, 1))

    with pytest.raises(AttributeError, match=r"super\(\)\.__init__"):
        Forgetful()


def test_a_wrong_model_folder_lists_what_is_there(cfg, tmp_path):
    cfg.TRAINER.NAME = "ToyPlain"
    trainer = build_trainer(cfg)
    trainer.save_model(4, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"model\.pth\.tar-3.*\['model\.pth\.tar-5'\]"):
        trainer.load_model(tmp_path, epoch=3)


def test_nothing_evaluated_and_nothing_counted(cfg):
    with pytest.raises(ValueError, match="no batch was processed"):
        build_evaluator(cfg).evaluate()
    with pytest.raises(ValueError, match="got neither"):
        count_num_param()
    cfg.TEST.PER_CLASS_RESULT = True
    with pytest.raises(ValueError, match="needs class names"):
        build_evaluator(cfg)
