"""A run that is killed and started again ends as if it had been left alone, bit for bit."""

import random
import signal

import numpy as np
import pytest
import torch
from dassl.utils import save_checkpoint

from runs import rng as random_states
from runs.precision import Precision
from tests.reliability.runs import OPTIONS, content, metrics, require_equal, require_same_end

WORKERS = {"DATALOADER__NUM_WORKERS": 2, "DATALOADER__TRAIN_X__BATCH_SIZE": 6}
BEST = {"TEST__FINAL_MODEL": "best_val"}
PRUNED = {"MODEL__PRUNE__AT": "(1,)", "MODEL__PRUNE__KEEP": "(40,)"}
STEP = ("trainers.base", "CLIPTrainer.forward_backward")
SAVE = ("runs.resume", "save_checkpoint")


@pytest.fixture
def killed(start, tmp_path):
    """A run that is killed at the given places one after the other, then ends."""

    def go(trainer, *stops, **options):
        for stop in stops:
            code, printed = start(trainer, "killed", job={"stop": stop}, **options)
            assert code == -signal.SIGKILL, printed
            assert not (tmp_path / "killed" / "results.json").exists()
        code, printed = start(trainer, "killed", **options)
        assert code == 0, printed
        return tmp_path / "killed"

    return go


@pytest.mark.parametrize(
    ("trainer", "options"),
    [
        ("CoOp", BEST),
        ("CoCoOp", {}),
        ("MaPLe", {}),
        ("PromptSRC", {"TRAINER__PROMPTSRC__GPA_MEAN": 2}),
        ("PromptKD", {}),
        ("TextRefiner", {}),
        ("Spotlighter", {}),
        ("Spotlighter", WORKERS | BEST),
        ("Spotlighter", {"TRAINER__SPOTLIGHTER__BASE": "PromptSRC"} | PRUNED),
    ],
)
def test_a_run_killed_in_a_step_ends_alike(whole, killed, witness, counted, trainer, options):
    options = OPTIONS | options
    steps = 12 // options.get("DATALOADER__TRAIN_X__BATCH_SIZE", 4)
    with counted("kills survived bit-equal: in a step, of seven trainers in nine settings"):
        one = whole(trainer, **options)
        other = killed(trainer, (*STEP, 2 * steps + 2, "before"), **options)
        require_same_end(one, other)
    logs = [path.read_text() for path in other.glob("log.txt*")]
    assert sum("Going on from" in log for log in logs) == 1
    how = ", ".join(f"{k.replace('__', '.')} {v}" for k, v in options.items() if k not in OPTIONS)
    fault = f"{trainer} {f'({how}) ' if how else ''}killed in a step of the third epoch"
    witness("resume", fault, "goes on after epoch 2, ends alike")


@pytest.mark.parametrize(
    ("stops", "fault"),
    [
        ([(*STEP, 3, "before")], "in the first epoch"),
        ([(*SAVE, 1, "before")], "before the first checkpoint"),
        ([("os", "fsync", 8, "half")], "while half of a checkpoint is written"),
        ([("pathlib", "Path.replace", 4, "before")], "before a checkpoint gets its name"),
        ([("pathlib", "Path.replace", 4, "behind")], "between a checkpoint and `checkpoint`"),
        ([(*SAVE, 3, "behind")], "behind the last checkpoint"),
        ([("runs.evaluate", "write_results", 1, "before")], "before its results are written"),
        (
            [(*STEP, 3, "before"), (*STEP, 5, "before"), ("os", "fsync", 8, "half")],
            "three times: twice in steps, then while writing",
        ),
    ],
)
def test_a_run_killed_between_and_in_files_ends_alike(
    whole, killed, witness, counted, stops, fault
):
    with counted("kills survived bit-equal: moments between, in and behind files (Spotlighter)"):
        require_same_end(whole("Spotlighter", **OPTIONS), killed("Spotlighter", *stops, **OPTIONS))
    witness("resume", f"Spotlighter killed {fault}", "ends alike")


SCHEDULES = {
    "adam": {"LR_SCHEDULER": "single_step", "STEPSIZE": "(2,)"},
    "amsgrad": {"LR_SCHEDULER": "multi_step", "STEPSIZE": "(1, 2)"},
    "sgd": {"LR_SCHEDULER": "cosine", "WARMUP_EPOCH": 1, "WARMUP_TYPE": "constant"},
    "rmsprop": {"LR_SCHEDULER": "cosine", "WARMUP_EPOCH": 2, "WARMUP_TYPE": "linear"},
    "radam": {"LR_SCHEDULER": "single_step", "WARMUP_EPOCH": 1, "WARMUP_RECOUNT": False},
    "adamw": {"LR_SCHEDULER": "multi_step", "WARMUP_EPOCH": 2, "STEPSIZE": "(1, 3)"},
}


def optim(**options):
    return OPTIONS | {f"OPTIM__{key}": value for key, value in options.items()}


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_optimiser_and_schedule_goes_on_alike(whole, killed, counted, name):
    options = optim(NAME=name, MAX_EPOCH=4, **SCHEDULES[name])
    with counted("kills survived bit-equal: optimisers, each with a schedule (CoOp)"):
        one, other = whole("CoOp", **options), killed("CoOp", (*STEP, 8, "before"), **options)
        require_equal(content(one, "model.pth.tar-4"), content(other, "model.pth.tar-4"))


def rates(folder, epochs):
    """The learning rate behind each epoch."""
    found = [content(folder, f"model.pth.tar-{epoch}")["optimizer"] for epoch in epochs]
    return [state["param_groups"][0]["lr"] for state in found]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"LR": 0.1, "WEIGHT_DECAY": 0.01, "MOMENTUM": 0.5},
        {"LR_SCHEDULER": "multi_step", "STEPSIZE": "(2, 5)"},
        {"WARMUP_EPOCH": 4, "WARMUP_TYPE": "linear"},
        {"NAME": "rmsprop", "MOMENTUM": 0.9},
    ],
)
def test_a_longer_run_has_the_schedule_and_the_settings_of_the_command(run, tmp_path, change):
    """Right values: those of a run that had them from its first epoch."""
    before = {"MOMENTUM": 0} | {key: change[key] for key in ("NAME",) if key in change}
    run("CoOp", **optim(**before))
    moments = content(tmp_path / "run")["optimizer"]["state"]
    options = optim(**{"MAX_EPOCH": 6, "MOMENTUM": 0.9} | change)
    run("CoOp", flags=("--allow-mismatch",), **options)
    run("CoOp", "alone", **options)
    epochs = range(4, 7)
    assert rates(tmp_path / "run", epochs) == rates(tmp_path / "alone", epochs)
    one, other = (
        content(tmp_path / name, "model.pth.tar-6")["optimizer"] for name in ("run", "alone")
    )
    assert one["param_groups"] == other["param_groups"]
    if "step" in moments.get(0, {}):  # counters go on
        assert one["state"][0]["step"] == 2 * moments[0]["step"]


def test_the_moments_of_another_optimiser_are_refused(run, fails, witness):
    run("CoOp", **OPTIONS)
    found = fails("CoOp", flags=("--allow-mismatch",), **optim(NAME="adam", MAX_EPOCH=6))
    assert "holds the state of the optimiser sgd, and this run has adam (OPTIM.NAME)" in found
    witness("resume", "another optimiser, with --allow-mismatch", found)


def test_a_best_epoch_survives_a_kill_between_the_files(whole, killed, witness):
    """Two files an epoch may be written: the best model, and the epoch's own."""
    options = OPTIONS | BEST | {"OPTIM__LR": 0.5}
    one, other = whole("CoOp", **options), killed("CoOp", (*SAVE, 3, "behind"), **options)
    require_same_end(one, other)
    best = "model-best.pth.tar"
    require_equal(content(one, best), content(other, best))
    witness("resume", "CoOp with best_val killed between best model and checkpoint", "ends alike")


def test_a_run_goes_on_elsewhere_with_its_best_model(whole, start, tmp_path):
    options = OPTIONS | BEST
    one = whole("CoOp", **options)
    assert start("CoOp", "first", job={"stop": (*STEP, 8, "before")}, **options)[0] < 0
    code, printed = start("CoOp", "second", flags=("--resume", str(tmp_path / "first")), **options)
    assert code == 0, printed
    require_same_end(one, tmp_path / "second")


def test_an_unseeded_run_goes_on_with_its_own_random_numbers(run, tmp_path, monkeypatch):
    options = OPTIONS | {"OPTIM__MAX_EPOCH": 1, "SEED": -1}
    run("CoOp", "run", **options)
    before = content(tmp_path / "run", "model.pth.tar-1")["random"]
    seen, restore = [], random_states.restore
    monkeypatch.setattr(random_states, "restore", lambda text: (seen.append(text), restore(text)))
    torch.manual_seed(99)
    with pytest.raises(ValueError, match=r"with weights \w+, and this run has .*--allow-mismatch"):
        run("CoOp", "run", **options)  # the random CLIP of these tests is another now
    run("CoOp", "run", flags=("--allow-mismatch",), **options)
    assert seen[-1:] == before


def test_all_generators_are_captured():
    def draw():
        return random.random(), random.gauss(0, 1), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    random.gauss(0, 1)  # Python keeps the second of a pair of normal numbers
    np.random.standard_normal()  # noqa: NPY002
    state = random_states.capture()
    first = draw()
    assert draw() != first
    random_states.restore(state)
    assert draw() == first


class Scaler:
    """Stands for CUDA's GradScaler, which a CPU has not."""

    def __init__(self):
        self.scale = 65536.0

    def state_dict(self):
        return {"scale": self.scale}

    def load_state_dict(self, state):
        self.scale = state["scale"]


def test_the_scale_of_the_loss_is_restored(run, tmp_path, monkeypatch):
    scalers, init = [], Precision.__init__

    def with_scaler(self, *args):
        init(self, *args)
        scalers.append(Scaler())
        self.scaler = scalers[-1]

    monkeypatch.setattr(Precision, "__init__", with_scaler)
    monkeypatch.setattr(Precision, "descend", lambda *_: None)
    options = OPTIONS | {"OPTIM__MAX_EPOCH": 1}
    run("CoOp", **options)
    path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-1"
    saved = torch.load(path, weights_only=True)
    assert saved["scaler"] == {"scale": 65536.0}
    save_checkpoint(saved | {"scaler": {"scale": 512.0}}, path.parent)
    run("CoOp", **options)
    assert scalers[-1].scale == 512.0


def test_results_of_a_shorter_run_do_not_stand_for_a_longer_one(start, tmp_path, witness):
    start("CoOp", **OPTIONS | {"OPTIM__MAX_EPOCH": 1})
    assert metrics(tmp_path / "run")[0]["epoch"] == 1
    job = {"stop": (*STEP, 2, "before")}
    code, printed = start("CoOp", job=job, flags=("--allow-mismatch",), **OPTIONS)
    assert code == -signal.SIGKILL, printed
    assert not (tmp_path / "run" / "results.json").exists()
    witness("resume", "a finished run is made longer, then killed", "it does not count as done")


@pytest.mark.thorough
def test_twenty_random_kills_change_nothing(start, whole, tmp_path, witness, measured):
    """Wherever the kill falls: by time, or in the middle of something."""
    rng = random.Random(7)
    places = [
        *[(*STEP, "before"), ("runs.health", "numbers_of_step", "behind")],
        *[("os", "fsync", "half"), ("os", "fsync", "before"), ("os", "fsync", "behind")],
        *[("pathlib", "Path.replace", "before"), ("pathlib", "Path.replace", "behind")],
        *[(*SAVE, "before"), (*SAVE, "behind"), ("pathlib", "Path.unlink", "behind")],
    ]
    options = OPTIONS | BEST | {"TRAIN__KEEP_CHECKPOINTS": 2}
    one, kills, runs = whole("Spotlighter", **options), 0, 0
    while kills < 20:
        runs += 1
        for _ in range(4):
            job = {"seconds": rng.uniform(0.1, 1.5)}
            if rng.random() < 0.6:
                *where, when = rng.choice(places)
                job = {"stop": (*where, rng.randint(1, 12), when)}
            code, printed = start("Spotlighter", f"killed{runs}", job=job, **options)
            assert code in (0, -signal.SIGKILL), printed
            kills += code < 0
            if code == 0:
                break
        else:
            assert start("Spotlighter", f"killed{runs}", **options)[0] == 0
        require_same_end(one, tmp_path / f"killed{runs}")
    fault = "20 kills at random moments of several runs: in steps, while writing, between files"
    witness("resume", fault, "all end alike")
    what = "kills survived bit-equal: at random moments (Spotlighter)"
    measured(what, f"{kills} of {kills}, in {runs} runs")
