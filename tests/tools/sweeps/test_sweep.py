"""Whole sweeps, with a train.py that only pretends to train."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runs import processes as guard
from tests.datasets.config import build
from tests.datasets.trees import class_folders, plant
from tests.tools.sweeps.conftest import FAKE_TRAIN, wait_for
from tools import sweep
from tools.sweeps import done, names, protocols
from tools.sweeps.schedule import fraction_done

ROOT = Path(__file__).parents[3]
FOOD = ["--trainers", "MaPLe", "--datasets", "emoji_food"]
RUN = "emoji_food/shots_16/MaPLe/tiny_emoji/seed1"
BASE, NEW = f"output/sweep/train_base/{RUN}", f"output/sweep/test_new/{RUN}"


KILLED = """\
import os, signal
with open("killed", "a+") as file:
    file.write("x")
    file.seek(0)
    if len(file.read()) <= {times}:
        {end}
"""
SIGKILL = "os.kill(os.getpid(), signal.SIGKILL)"


def go(*words):
    return sweep.main(["--serial", *words])


AT_LEAST_1 = ("--processes", "--threads", "--torchrun")


def test_jobs_run_in_order_once_with_fixed_threads(project, capsys):
    assert go(*FOOD, "--seeds", "1", "2", "--threads", "3") == 0
    ends = project.events("end")
    assert len(set(ends)) == len(ends) == 4
    assert ends.index(BASE) < ends.index(NEW)
    assert project.events("start", column=2) == ["3"] * 4
    printed = capsys.readouterr().out
    assert "[4/4] MaPLe:tiny_emoji on emoji_food (new classes), 16 shots, seed 2: " in printed
    assert go(*FOOD, "--seeds", "1", "2") == 0
    assert "all 4 jobs were done before" in capsys.readouterr().out
    assert project.events("start") == ends


def test_several_jobs_run_at_a_time(project):
    (project.root / "hold").touch()
    words = [sys.executable, "-c", CODE, str(project.root), *FOOD]
    words += ["--seeds", "1", "2", "3", "--processes", "2"]
    process = subprocess.Popen(words, cwd=ROOT, env=environment(project))
    wait_for(lambda: len(project.events("start")) == 2)
    time.sleep(0.3)
    assert len(project.events("start")) == 2
    (project.root / "hold").unlink()
    assert process.wait(300) == 0
    assert len(project.events("end")) == 6


def test_a_test_is_repeated_when_its_training_is(project):
    go(*FOOD)
    (project.root / BASE / "results.json").unlink()
    go(*FOOD)
    assert project.events("end") == [BASE, NEW, BASE, NEW]


def test_file_times_decide_nothing(project):
    """As where the clock of another machine is an hour ahead."""
    go(*FOOD)
    later = time.time() + 3600
    os.utime(project.root / BASE / "results.json", (later, later))
    assert go(*FOOD) == 0
    assert project.events("end") == [BASE, NEW]


@pytest.mark.parametrize(
    ("own", "need", "done"),
    [
        ({"learned": "a"}, {"learned": "a"}, True),
        ({"learned": "a"}, {"learned": "b"}, False),
        ({"learned": "a", "teacher": "PromptSRC on ViT-B/16, b"}, {"learned": "b"}, True),
        ({"learned": None}, {"learned": None}, True),
        ({}, {"learned": "a"}, False),
        ([], {"learned": "a"}, False),
    ],
)
def test_a_job_is_done_with_what_it_needs_as_it_is_now(tmp_path, own, need, done):
    for name, content in (("own", own), ("need", need)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(content))
    assert guard.is_done(tmp_path / "own", [tmp_path / "need"]) == done
    assert not guard.is_done(tmp_path / "own", [tmp_path / "nowhere"])


def leave(project, job, **changes):
    """What the run of a job leaves, and what it would not have left."""
    import train
    import trainers  # noqa: F401  (registers the trainers, with their keys)
    from runs.config import build_config

    cfg = build_config(train.parse_args([*job.words, *changes.pop("words", ())]))
    folder = project / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(changes))
    (folder / "config.yaml").write_text(cfg.dump())


def planned(project, *opts, dataset="emoji_food", trainer="CoOp", root="data"):
    run = protocols.Cell(
        "fewshot", trainer, dataset, 1, 2, Path("out"), "tiny_emoji", root, targets=(), opts=opts
    )
    return protocols.plan(run)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("OPTIM.MAX_EPOCH", "7"), "OPTIM.MAX_EPOCH 7 there, 50 here"),
        (("TEST.SPLIT", "val"), "TEST.SPLIT val there, test here"),
        (("SEED", "3"), "SEED 3 there, 1 here"),
        (("TRAINER.COOP.CSC", "True"), "TRAINER.COOP.CSC True there, False here"),
        (("MODEL.BACKBONE.WEIGHTS", "a.pt"), "MODEL.BACKBONE.WEIGHTS a.pt there,  here"),
        (("TRAINER.MAPLE.N_CTX", "3"), ""),
        (("DATALOADER.TEST.BATCH_SIZE", "3"), ""),
        (("DATASET.ROOT", "elsewhere"), ""),
    ],
)
def test_results_of_another_run_are_not_a_jobs_own(project, words, said):
    (job,) = planned(project)
    leave(project.root, job, words=words)
    found = "; ".join(done.differences(job, project.root))
    assert found.split(" there")[0] == said.split(" there")[0]
    if said:
        with pytest.raises(ValueError, match="holds results of another run: "):
            done.require_own([job], project.root)


def test_results_on_another_split_are_not_a_jobs_own(project):
    plant("OxfordPets", project.root / "data")
    (job,) = planned(project, dataset="oxford_pets")
    build("OxfordPets", project.root / "data")  # its split is made from its own files
    digest = names.digest_of("OxfordPets", project.root / "data")
    leave(project.root, job, data=digest)
    assert done.differences(job, project.root) == []
    leave(project.root, job, data="0123456789ab")
    assert done.differences(job, project.root) == [f"data 0123456789ab there, {digest} here"]
    (moved,) = planned(project, dataset="oxford_pets", root="elsewhere")  # cannot be asked
    assert done.differences(moved, project.root) == []


def test_what_only_training_reads_is_no_difference_of_what_learns_nothing(project):
    (job,) = planned(project, trainer="ZeroshotCLIP")
    leave(project.root, job, words=("OPTIM.MAX_EPOCH", "7"))
    assert done.differences(job, project.root) == []


def test_a_sweep_of_other_settings_runs_nothing_and_loses_nothing(project, capsys):
    words = [*FOOD, "--protocols", "fewshot", "--shots", "2"]
    job = protocols.plan(
        protocols.Cell("fewshot", "MaPLe", "emoji_food", 1, 2, Path("output/sweep"))
    )[0]
    leave(project.root, job, accuracy=61)
    assert go(*words) == 0
    assert go(*words, "--opts", "OPTIM.LR", "0.5") == 2
    error = capsys.readouterr().err
    assert f"sweep: error: {job.folder} holds results of another run: OPTIM.LR " in error
    assert not project.events("start")
    assert json.loads((project.root / job.folder / "results.json").read_text()) == {"accuracy": 61}


def test_own_pictures_have_folders_of_their_own(project):
    """Two folders of pictures are two data sets, and one that has changed is another."""
    class_folders(project.root / "pets", ["bee", "cat"])
    class_folders(project.root / "cars", ["bus", "van", "cab"])
    pets, cars = (planned(project, dataset="folder", root=name)[0] for name in ("pets", "cars"))
    assert pets.folder.parts[1].startswith("pets-")
    assert cars.folder.parts[1].startswith("cars-")
    named = ("DATASET.LABEL", "mine")
    (one,) = planned(project, *named, dataset="folder", root="pets")
    (other,) = planned(project, *named, dataset="folder", root="cars")
    assert one.folder == other.folder
    digest = names.digest_of("Folder", project.root / "pets")
    leave(project.root, one, data=digest)
    assert done.differences(one, project.root) == []
    assert "data " in done.differences(other, project.root)[0]


def test_failures_are_retried_and_listed_and_the_rest_goes_on(project, capsys):
    (project.root / "fails").write_text("emoji_faces")
    words = ["--trainers", "MaPLe", "--datasets", "emoji_faces", "emoji_food"]
    assert go(*words, "--retries", "2") == 1
    assert len([e for e in project.events("start") if "emoji_faces" in e]) == 3
    assert project.events("end") == [BASE, NEW]
    out, error = capsys.readouterr()
    assert "exit code 1; trying again" in out
    assert "not run, because what it needs failed" in out
    assert "failed: MaPLe:tiny_emoji on emoji_faces (base classes), 16 shots, seed 1" in error
    assert "no such data" in error
    assert "1 of 4 jobs failed, 1 need them" in error
    (project.root / "fails").unlink()
    assert go(*words) == 0
    assert len(project.events("end")) == 4


def test_a_users_mistake_is_not_tried_again(project, monkeypatch):
    monkeypatch.setenv("FAKE_CODE", "2")
    (project.root / "fails").write_text("emoji_food")
    assert go(*FOOD, "--retries", "5") == 1
    assert project.events("start") == [BASE]


@pytest.mark.parametrize("how", [(), ("--isolate",)], ids=["awake", "isolated"])
@pytest.mark.parametrize(
    ("times", "code", "end", "said"),
    [(5, 0, SIGKILL, -9), (6, 1, SIGKILL, -9), (5, 0, "raise SystemExit(143)", 143)],
)
def test_a_job_that_was_killed_is_tried_again_without_a_retry(
    project, capsys, times, code, end, said, how
):
    (project.root / "train.py").write_text(KILLED.format(times=times, end=end) + FAKE_TRAIN)
    assert go(*FOOD, "--retries", "0", *how) == code
    out, error = capsys.readouterr()
    assert out.count(f"it was killed ({said}); trying again") == 5
    assert (f"it was killed ({said}), for the 6th time" in error) == bool(code)


def test_an_end_without_results_is_a_failure(project, capsys):
    (project.root / "train.py").write_text("")
    assert go(*FOOD) == 1
    assert "it ended without results.json" in capsys.readouterr().err


def test_dry_run_shows_all_and_runs_nothing(project, capsys):
    go(*FOOD)
    capsys.readouterr()
    (project.root / NEW / "results.json").unlink()
    assert go(*FOOD, "--dry-run", "--opts", "OPTIM.LR", "0.1") == 0
    printed = capsys.readouterr().out
    assert "done: MaPLe:tiny_emoji on emoji_food (base classes)" in printed
    assert "to run: MaPLe:tiny_emoji on emoji_food (new classes)" in printed
    assert "train.py --root data --seed 1 --trainer MaPLe " in printed
    assert "SUBSAMPLE_CLASSES new OPTIM.LR 0.1\n2 jobs, 1 done" in printed
    assert project.events("start") == [BASE, NEW]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainers", "Cop", "--datasets", "dtd"], "sweep: error: no trainer Cop; there are: "),
        (["--trainers", "CoOp", "--datasets", "dte"], "sweep: error: no data set dte; there are"),
    ],
)
def test_mistakes_end_in_one_sentence(project, capsys, words, message):
    assert go(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        *[["--processes", "0"], ["--processes", "-1"], ["--threads", "0"], ["--torchrun", "0"]],
        *[["--retries", "-1"], ["--seeds", "-1"], ["--shots", "-4"], ["--shots", "many"]],
    ],
)
def test_numbers_that_cannot_be_are_refused(project, capsys, words):
    with pytest.raises(SystemExit, match="2"):
        go(*FOOD, *words)
    assert f"must be a whole number from {'01'[words[0] in AT_LEAST_1]} on" in (
        capsys.readouterr().err
    )
    assert not project.events("start")


def test_without_ray_it_says_what_to_do(project, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert sweep.main(FOOD) == 2
    error = capsys.readouterr().err
    assert (
        "Ray is not installed: install it (pip install -r requirements-cluster.txt), or " in error
    )


def test_missing_pictures_are_drawn_first_and_only_those(project, monkeypatch):
    drawn = []
    monkeypatch.setattr("datasets.emoji.ensure_dataset", lambda *args: drawn.append(args))
    used = [("data", name) for name in ("dtd", "emoji_food", "emoji_wear")]
    sweep.draw_missing(used, project.root)
    folder = project.root / "data" / "emoji_wear"
    assert drawn == [(folder, "split_zhou_EmojiWear.json", "wear", "colour")]


CODE = """
import sys
from pathlib import Path
from tools.sweeps import awake, names
names.PROJECT, awake.PRELOAD = Path(sys.argv.pop(1)), ()
from tools import sweep
sys.exit(sweep.main())
"""


def environment(project):
    return os.environ | {"PYTHONPATH": str(ROOT)}


def start(project, *words):
    command = [sys.executable, "-c", CODE, str(project.root), *FOOD, "--serial", *words]
    return subprocess.Popen(command, cwd=ROOT, env=environment(project), stderr=subprocess.PIPE)


@pytest.mark.parametrize("how", [(), ("--isolate",)], ids=["awake", "isolated"])
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_killed_takes_its_jobs_with_it_and_goes_on(project, sign, how):
    (project.root / "hold").touch()
    process = start(project, *how)
    wait_for(lambda: project.events("start"))
    process.send_signal(sign)
    error = process.communicate(timeout=300)[1].decode()
    if sign != signal.SIGKILL:
        assert process.returncode == 128 + sign
        assert error == "sweep: stopped; the same command goes on from here\n"
    (project.root / "hold").unlink()
    assert start(project).wait(300) == 0
    assert project.events("start") == [BASE, BASE, NEW]
    assert project.events("end") == [BASE, NEW]


def test_two_sweeps_of_the_same_jobs_share_them(project):
    """As when a machine was given up for dead too early."""
    (project.root / "hold").touch()
    one = start(project)
    wait_for(lambda: project.events("start"))
    other = start(project)
    log = project.root / BASE / "sweep.txt"
    # The second sweep removes the log of an earlier attempt before its worker is ready.
    wait_for(lambda: log.exists() and "waiting for another process" in log.read_text())
    (project.root / "hold").unlink()
    assert (one.wait(300), other.wait(300)) == (0, 0)
    assert project.events("end") == [BASE, NEW]


def test_fraction_done_follows_the_last_epoch(tmp_path):
    log = tmp_path / "log.txt"
    assert fraction_done(log) == 0
    log.write_text("loading\n")
    assert fraction_done(log) == 0
    log.write_text("epoch [1/20] batch [1/2]\nepoch [5/20] batch [1/2]\n")
    assert fraction_done(log) == 0.25
