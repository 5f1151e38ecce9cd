import pytest
import torch
from dassl.config import get_cfg_default
from dassl.optim import build_optimizer
from torch import optim


def settings(name):
    cfg = get_cfg_default().OPTIM
    cfg.NAME = name
    return cfg


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adam", optim.Adam),
        ("amsgrad", optim.Adam),
        ("sgd", optim.SGD),
        ("rmsprop", optim.RMSprop),
        ("adamw", optim.AdamW),
    ],
)
def test_names_and_settings(name, kind):
    optimizer = build_optimizer(torch.nn.Linear(2, 1), settings(name))
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert group["lr"] == 0.0003
    assert group["weight_decay"] == 5e-4
    assert group.get("momentum", 0.9) == 0.9
    assert group.get("betas", (0.9, 0.999)) == (0.9, 0.999)
    assert group.get("amsgrad", False) == (name == "amsgrad")


def test_radam_learns():
    layer = torch.nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    optimizer = build_optimizer(layer, settings("radam"))
    for _ in range(8):
        optimizer.zero_grad()
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert (layer.weight < before).all()


def test_new_layers_learn_at_the_full_rate():
    cfg = settings("sgd")
    cfg.STAGED_LR, cfg.NEW_LAYERS = True, ("1",)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    base, new = build_optimizer(model, cfg).param_groups
    assert base["lr"] == pytest.approx(0.0003 * 0.1)
    assert new["lr"] == 0.0003
    assert base["params"][0] is model[0].weight
    assert new["params"][0] is model[1].weight


def test_parameters_and_groups_are_accepted():
    layer = torch.nn.Linear(2, 1)
    assert build_optimizer([layer.weight], settings("sgd")).param_groups[0]["params"] == [
        layer.weight
    ]
    groups = [{"params": [layer.bias], "lr": 1.0}]
    optimizer = build_optimizer(layer, settings("sgd"), param_groups=groups)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0]
