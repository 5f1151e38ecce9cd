"""Where upstream fails on current Python and torch, and where the engine goes further."""

import sys

import pytest
import torch
from dassl.data import DataManager
from dassl.engine import build_trainer
from dassl.utils import choose_device, set_random_seed
from test_dassl_trainer import trained


def order_of(cfg, workers, passes=3):
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.INPUT.TRANSFORMS = ("normalize",)  # no draws beside those of the order
    loader = DataManager(cfg).train_loader_x
    set_random_seed(5)
    return [[i for batch in loader for i in batch["index"].tolist()] for _ in range(passes)]


def test_the_order_of_pictures_does_not_depend_on_the_workers(cfg):
    alone = order_of(cfg, 0)
    assert alone[0] != alone[1] != alone[2]
    assert order_of(cfg, 2) == alone


def test_one_seed_gives_the_same_views_from_workers(cfg):
    cfg.DATALOADER.NUM_WORKERS = 2
    cfg.INPUT.TRANSFORMS = ("random_translation", "random_resized_crop", "cutout")

    def views():
        set_random_seed(0)
        return torch.cat([batch["img"] for batch in DataManager(cfg).train_loader_x])

    assert torch.equal(views(), views())


def test_workers_stay_and_memory_is_pinned_for_cuda_only(cfg, monkeypatch):
    cfg.DATALOADER.NUM_WORKERS = 2
    loader = DataManager(cfg).train_loader_x
    assert loader.persistent_workers
    assert not loader.pin_memory
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cfg.USE_CUDA = True
    assert DataManager(cfg).train_loader_x.pin_memory


@pytest.mark.parametrize(
    ("use", "cuda", "mps", "expected"),
    [
        (True, True, True, "cuda"),
        (True, False, True, "mps"),
        (True, False, False, "cpu"),
        (False, True, True, "cpu"),
    ],
)
def test_device_is_the_best_there_is_unless_unwanted(monkeypatch, use, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device(use) == torch.device(expected)


def test_half_precision_on_a_cpu_becomes_single_with_a_word(cfg, capsys):
    cfg.TRAINER.TOYCOOP.PREC = "fp16"
    cfg.freeze()
    trainer = build_trainer(cfg)
    assert trainer.prec == "fp32"
    assert trainer.cfg.is_frozen()
    assert cfg.TRAINER.TOYCOOP.PREC == "fp16"
    assert "TRAINER.TOYCOOP.PREC fp16 is computed as fp32 on the CPU" in capsys.readouterr().out


def test_a_missing_tensorboard_costs_one_line(cfg, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    trained(cfg)
    shown = capsys.readouterr().out
    assert shown.count("the package tensorboard is missing") == 1
    assert "Finish training" in shown


def test_a_folder_without_a_checkpoint_is_not_resumed_from(cfg, tmp_path, capsys):
    (tmp_path / "out" / "prompt_learner").mkdir(parents=True)
    assert trained(cfg).start_epoch == 0
    assert "No checkpoint found, train from scratch" in capsys.readouterr().out


def test_the_best_result_survives_resuming(cfg, tmp_path):
    cfg.TEST.FINAL_MODEL = "best_val"
    first = trained(cfg)
    cfg.OPTIM.MAX_EPOCH = 3
    second = build_trainer(cfg)
    second.after_epoch = lambda: None
    second.train()
    assert second.best_result == first.best_result > 0


def test_best_val_without_validation_pictures_warns(cfg, capsys):
    cfg.DATASET.NAME, cfg.TEST.FINAL_MODEL = "ToyColoursU", "best_val"
    trained(cfg)
    assert "There are no validation pictures" in capsys.readouterr().out


def test_a_plain_trainer_refuses_a_checkpoint_of_other_classes(cfg, tmp_path):
    cfg.TRAINER.NAME = "ToyPlain"
    trainer = build_trainer(cfg)
    trainer.save_model(0, tmp_path)
    trainer.model.prompt_learner.ctx = torch.nn.Parameter(torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"does not fit CustomCLIP: size mismatch .*ctx"):
        trainer.load_model(tmp_path, epoch=1)


def test_the_confusion_matrix_is_a_tensor_that_loads_safely(cfg, tmp_path):
    cfg.TEST.COMPUTE_CMAT = True
    build_trainer(cfg).test()
    matrix = torch.load(tmp_path / "out" / "cmat.pt", weights_only=True)
    assert matrix.dtype == torch.float64
    assert matrix.sum().item() == pytest.approx(3)  # three labels, rows of one
