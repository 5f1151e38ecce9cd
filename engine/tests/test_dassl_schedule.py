"""Learning rates epoch by epoch; the expected numbers come from the formulas."""

import math

import pytest
import torch
from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer

LR, EPOCHS = 2e-3, 8


def settings(**keys):
    cfg = get_cfg_default().OPTIM
    cfg.merge_from_list(["NAME", "sgd", "LR", LR, "MAX_EPOCH", EPOCHS])
    for key, value in keys.items():
        cfg[key] = value
    return cfg


def rates(cfg, epochs=EPOCHS):
    model = torch.nn.Linear(2, 1)
    optimizer = build_optimizer(model, cfg)
    scheduler = build_lr_scheduler(optimizer, cfg)
    seen = []
    for _ in range(epochs):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def cosine(k):
    return (1 + math.cos(math.pi * k / EPOCHS)) / 2


def warmup_rates(kind, length):
    if kind == "constant":
        return [1e-5] * length
    return [1e-5] + [LR * epoch / length for epoch in range(1, length)]


# Share of LR in the k-th epoch after the warm-up (k = 0, 1, ...). With recounting the schedule
# starts at 0; without, it goes on from the length of the warm-up, but its first value is LR.
SHARES = {
    ("cosine", True): lambda k, warm: cosine(k),
    ("cosine", False): lambda k, warm: cosine(warm + k) / cosine(warm),
    ("single_step", True): lambda k, warm: 0.1 ** (k // 3),
    ("single_step", False): lambda k, warm: 0.1 ** ((warm + k) // 3 - warm // 3),
    ("multi_step", True): lambda k, warm: 0.1 ** sum(m <= k for m in (2, 5)),
    ("multi_step", False): lambda k, warm: 0.1 ** sum(warm < m <= warm + k for m in (2, 5)),
}


@pytest.mark.parametrize("recount", [True, False])
@pytest.mark.parametrize("kind", ["constant", "linear"])
@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("name", ["cosine", "single_step", "multi_step"])
def test_rates_after_a_warmup_follow_the_formula(name, length, kind, recount):
    cfg = settings(
        LR_SCHEDULER=name,
        STEPSIZE=(2, 5) if name == "multi_step" else (3,),
        WARMUP_EPOCH=length,
        WARMUP_TYPE=kind,
        WARMUP_RECOUNT=recount,
    )
    share = SHARES[name, recount]
    expected = warmup_rates(kind, length)
    expected += [LR * share(k, length) for k in range(EPOCHS - length)]
    assert rates(cfg) == pytest.approx(expected, rel=1e-9)


def test_the_usual_setting_never_reaches_its_last_epochs():
    cfg = settings(LR_SCHEDULER="cosine", WARMUP_EPOCH=1, WARMUP_TYPE="constant")
    seen = rates(cfg)
    assert seen[0] == 1e-5
    assert seen[1] == LR
    assert seen[2:] == pytest.approx([LR * cosine(k) for k in range(1, EPOCHS - 1)])
    assert seen[-1] > LR * cosine(EPOCHS - 1)


@pytest.mark.parametrize(
    ("name", "stepsize", "share"),
    [
        ("cosine", (-1,), cosine),
        ("single_step", (-1,), lambda k: 1.0),
        ("single_step", (3,), lambda k: 0.1 ** (k // 3)),
        ("multi_step", (2, 5), lambda k: 0.1 ** ((k >= 2) + (k >= 5))),
    ],
)
def test_rates_without_a_warmup(name, stepsize, share):
    cfg = settings(LR_SCHEDULER=name, STEPSIZE=stepsize)
    assert rates(cfg) == pytest.approx([LR * share(k) for k in range(EPOCHS)], rel=1e-9)
    assert rates(settings(LR_SCHEDULER="cosine"), 9)[-1] == pytest.approx(0.0, abs=1e-12)


def test_each_group_warms_up_to_its_own_rate():
    cfg = settings(LR_SCHEDULER="cosine", WARMUP_EPOCH=2, STAGED_LR=True, NEW_LAYERS=("1",))
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    optimizer = build_optimizer(model, cfg)
    scheduler = build_lr_scheduler(optimizer, cfg)
    seen = []
    for _ in range(3):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    expected = [1e-5, 1e-5, LR * 0.1 / 2, LR / 2, LR * 0.1, LR]
    assert [rate for pair in seen for rate in pair] == pytest.approx(expected)
