"""A trainer file in the published style, trained for some epochs on the engine."""

import re
import sys

import pytest
import torch
from dassl.engine import build_trainer
from dassl.utils import load_checkpoint, set_random_seed, setup_logger

PROGRESS = re.compile(
    r"epoch \[2/2\] batch \[2/3\] time \d+\.\d{3} \(\d+\.\d{3}\) data \d+\.\d{3} \(\d+\.\d{3}\) "
    r"loss \d+\.\d{4} \(\d+\.\d{4}\) acc \d+\.\d{4} \(\d+\.\d{4}\) lr \d\.\d{4}e-\d\d "
    r"eta \d:\d\d:\d\d"
)


def trained(cfg, seed=1):
    set_random_seed(seed)
    trainer = build_trainer(cfg)
    trainer.train()
    return trainer


def weights(trainer):
    return trainer.model.prompt_learner.ctx.detach().clone()


def files(path):
    return sorted(entry.name for entry in path.iterdir())


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_it_learns_and_writes_what_users_expect(cfg, out):
    cfg.OPTIM.MAX_EPOCH = 8
    cfg.TRAIN.CHECKPOINT_FREQ = 4
    trainer = trained(cfg)
    assert trainer.test() > 90
    assert files(out / "prompt_learner") == ["checkpoint", "model.pth.tar-4", "model.pth.tar-8"]
    checkpoint = load_checkpoint(out / "prompt_learner" / "model.pth.tar-8")
    assert set(checkpoint) == {"state_dict", "epoch", "optimizer", "scheduler", "val_result"}
    assert checkpoint["epoch"] == 8
    assert torch.equal(checkpoint["state_dict"]["ctx"], weights(trainer))


def test_names_that_trainer_files_lean_on(cfg):
    trainer = build_trainer(cfg)
    assert trainer.dm.dataset.classnames == ["red", "green", "blue"]
    assert trainer.lab2cname == {0: "red", 1: "green", 2: "blue"}
    assert (trainer.num_classes, trainer.max_epoch, trainer.start_epoch) == (3, 2, 0)
    assert trainer.device == torch.device("cpu")
    assert trainer.get_model_names() == ["prompt_learner"]
    assert trainer.get_current_lr() == 0.5
    trainer.set_model_mode("eval")
    assert not trainer.model.prompt_learner.training


def test_log_lines_are_in_the_log_and_on_the_terminal(cfg, out, capsys):
    setup_logger(str(out))
    trained(cfg)
    sys.stdout.flush()
    log, shown = (out / "log.txt").read_text(), capsys.readouterr().out
    for text in (log, shown):
        assert PROGRESS.search(text)
        assert "\nFinish training\n" in text
        assert re.search(r"\n=> result\n\* total: 9\n\* correct: \d\n\* accuracy: ", text)
        assert re.search(r"\* accuracy: ([\.\deE+-]+)%", text)
        assert re.search(r"\nElapsed: \d:\d\d:\d\d\n", text)


def test_every_batch_is_shown_when_there_are_few(cfg, capsys):
    cfg.TRAIN.PRINT_FREQ = 10
    trained(cfg)
    shown = capsys.readouterr().out
    assert all(f"epoch [1/2] batch [{i}/3]" in shown for i in (1, 2, 3))


def test_the_schedule_steps_once_per_epoch(cfg):
    cfg.OPTIM.MAX_EPOCH = 4
    trainer = build_trainer(cfg)
    seen = []
    trainer.before_epoch = lambda: seen.append(trainer.get_current_lr())
    trainer.train()
    assert seen == pytest.approx([0.5, 0.5 * 0.8535533906, 0.25, 0.5 * 0.1464466094])


def test_a_stopped_run_is_resumed_and_ends_equal(cfg, out):
    cfg.OPTIM.MAX_EPOCH = 4
    cfg.TEST.NO_TEST = True
    reference = trained(cfg)
    (out / "prompt_learner" / "checkpoint").unlink()
    cfg.TRAIN.CHECKPOINT_FREQ = 1
    set_random_seed(1)
    stopped = build_trainer(cfg)

    def stop():
        if stopped.epoch == 2:
            raise KeyboardInterrupt

    stopped.before_epoch = stop
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    generator_state = torch.get_rng_state()
    resumed = build_trainer(cfg)
    torch.set_rng_state(generator_state)
    resumed.train()
    assert resumed.start_epoch == 2
    assert torch.equal(weights(resumed), weights(reference))


def test_resume_names_another_folder(cfg, out, tmp_path):
    trained(cfg)
    cfg.RESUME, cfg.OUTPUT_DIR = str(out), str(tmp_path / "second")
    cfg.OPTIM.MAX_EPOCH = 3
    trainer = trained(cfg)
    assert trainer.start_epoch == 2
    assert (tmp_path / "second" / "prompt_learner" / "model.pth.tar-3").is_file()


def test_the_best_model_on_val_is_kept_and_deployed(cfg, out, capsys):
    cfg.TEST.FINAL_MODEL = "best_val"
    trainer = trained(cfg)
    shown = capsys.readouterr().out
    assert "Evaluate on the *val* set" in shown
    assert "Deploy the model with the best val performance" in shown
    best = load_checkpoint(out / "prompt_learner" / "model-best.pth.tar")
    assert best["val_result"] == trainer.best_result
    assert torch.equal(best["state_dict"]["ctx"], weights(trainer))


def test_no_test_ends_without_a_result(cfg, capsys):
    cfg.TEST.NO_TEST = True
    trained(cfg)
    shown = capsys.readouterr().out
    assert "Finish training" in shown
    assert "=> result" not in shown


def test_a_saved_model_gives_the_same_result_in_a_new_trainer(cfg, out):
    first = trained(cfg)
    expected = first.test()
    cfg.SEED = 7
    set_random_seed(7)
    second = build_trainer(cfg)
    assert not torch.equal(weights(second), weights(first))
    second.load_model(str(out), epoch=2)
    assert torch.equal(weights(second), weights(first))
    assert second.test() == expected
    with pytest.raises(FileNotFoundError, match="model-best"):
        second.load_model(str(out))


def test_tensorboard_gets_the_scalars(cfg, out):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trained(cfg)
    events = reading.EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss", "train/acc", "train/lr", "test/accuracy", "test/macro_f1"} <= tags
    assert [event.step for event in events.Scalars("train/loss")] == list(range(6))


def test_one_seed_gives_equal_bits(cfg, out):
    cfg.TEST.NO_TEST = True
    first = weights(trained(cfg, seed=0))
    for name in ("checkpoint", "model.pth.tar-2"):
        (out / "prompt_learner" / name).unlink()
    assert torch.equal(weights(trained(cfg, seed=0)), first)


def test_upstreams_own_hooks_serve_a_plain_trainer(cfg, out):
    cfg.TRAINER.NAME = "ToyPlain"
    trainer = trained(cfg)
    trainer.load_model(str(out), epoch=2)
    assert 0 <= trainer.test("val") <= 100


def test_the_rate_moves_once_an_epoch_where_epochs_differ_in_length(cfg):
    """Classes that run out early end an epoch of RandomClassSampler early."""
    cfg.TRAINER.NAME, cfg.OPTIM.MAX_EPOCH, cfg.TEST.NO_TEST = "ToyCoOp", 6, True
    cfg.DATALOADER.TRAIN_X.SAMPLER, cfg.DATALOADER.TRAIN_X.N_INS = "RandomClassSampler", 1
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 2
    cfg.OPTIM.LR_SCHEDULER, cfg.OPTIM.STEPSIZE, cfg.OPTIM.GAMMA = "single_step", (1,), 0.5
    set_random_seed(1)
    trainer, seen = build_trainer(cfg), []
    trainer.after_epoch = lambda: seen.append((trainer.batch_idx + 1, trainer.get_current_lr()))
    trainer.train()
    assert len({batches for batches, _ in seen}) > 1
    assert [rate for _, rate in seen] == [0.5**epoch for epoch in range(2, 8)]


def test_a_loss_that_is_not_finite_stops_the_run(cfg):
    trainer = build_trainer(cfg)
    with pytest.raises(FloatingPointError, match="NaN"):
        trainer.model_backward_and_update(torch.tensor(float("nan"), requires_grad=True))
