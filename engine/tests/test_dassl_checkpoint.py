import pytest
import torch
from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import (
    load_checkpoint,
    load_pretrained_weights,
    resume_from_checkpoint,
    save_checkpoint,
)
from torch import nn


def trained(epochs, seed=0, warmup="constant"):
    """A small model after some epochs, its optimiser and its schedule."""
    cfg = get_cfg_default().OPTIM
    cfg.merge_from_list(["NAME", "sgd", "LR", 0.1, "LR_SCHEDULER", "cosine", "MAX_EPOCH", 6])
    cfg.merge_from_list(["WARMUP_EPOCH", 1, "WARMUP_TYPE", warmup])
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = build_optimizer(model, cfg)
    scheduler = build_lr_scheduler(optimizer, cfg)
    for _ in range(epochs):
        one_epoch(model, optimizer, scheduler)
    return model, optimizer, scheduler


def one_epoch(model, optimizer, scheduler):
    optimizer.zero_grad()
    model(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()
    scheduler.step()


def state_of(model, optimizer, scheduler, epoch):
    return {
        "state_dict": model.state_dict(),
        "epoch": epoch,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "val_result": None,
    }


def test_file_names_and_pointer(tmp_path):
    state = {"state_dict": {"w": torch.ones(1)}, "epoch": 7}
    save_checkpoint(state, str(tmp_path / "m"))
    assert (tmp_path / "m" / "checkpoint").read_text().strip() == "model.pth.tar-7"
    save_checkpoint(state, str(tmp_path / "m"), is_best=True, model_name="mine.pth.tar")
    assert (tmp_path / "m" / "checkpoint").read_text().strip() == "mine.pth.tar"
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "checkpoint",
        "mine.pth.tar",
        "model-best.pth.tar",
        "model.pth.tar-7",
    ]


def test_the_prefix_of_parallel_models_is_dropped(tmp_path):
    state_dict = {"module.w": torch.ones(1), "sub.module.w": torch.zeros(1)}
    save_checkpoint({"state_dict": state_dict, "epoch": 1}, str(tmp_path))
    loaded = load_checkpoint(str(tmp_path / "model.pth.tar-1"))
    assert list(loaded["state_dict"]) == ["w", "sub.module.w"]


@pytest.mark.parametrize("warmup", ["constant", "linear"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path, epochs, warmup):
    parts = trained(epochs, warmup=warmup)
    save_checkpoint(state_of(*parts, epochs), str(tmp_path))
    resumed = trained(0, seed=1, warmup=warmup)
    assert resume_from_checkpoint(str(tmp_path), *resumed) == epochs
    for _ in range(2):
        one_epoch(*parts)
        one_epoch(*resumed)
    assert torch.equal(parts[0].weight, resumed[0].weight)
    assert parts[1].param_groups[0]["lr"] == resumed[1].param_groups[0]["lr"]


def test_matching_weights_are_loaded_and_others_left(tmp_path):
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    bias = target.bias.detach().clone()
    state_dict = {"module.weight": source.weight.detach(), "bias": torch.ones(5)}
    torch.save({"state_dict": state_dict}, tmp_path / "weights.pth")
    load_pretrained_weights(target, str(tmp_path / "weights.pth"))
    assert torch.equal(target.weight, source.weight)
    assert torch.equal(target.bias, bias)


def test_a_missing_file_is_said():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_checkpoint("nowhere.pth")
