"""One command from a folder of photos to a page: what it decides, says and leaves."""

import argparse
import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from models.clip.load import random_clip
from tests.datasets.trees import picture
from tools import own
from tools.own import TRAINERS, announce, decide, look, main
from tools.shared import cost


def plant(folder, numbers, part=""):
    for name, number in numbers.items():
        for i in range(number):
            picture(folder / part / name / f"{i}.png")
    return folder


def planned(folder, **options):
    args = argparse.Namespace(folder=folder, config=None, shots=16, output=None)
    vars(args).update(options)
    return decide(args, *look(folder, 3))


def notes(plan):
    return "\n".join(plan.notes)


@pytest.fixture
def photos(tmp_path):
    return plant(tmp_path / "my photos", {"bee": 8, "cat": 20, "dog": 20})


def test_a_folder_is_counted_before_anything_runs(photos, capsys):
    plan = planned(photos)
    out = capsys.readouterr().out
    assert "my photos: 48 pictures (24 train, 10 val, 14 test), 3 classes" in out
    assert "bee: 8 (train 4, val 2, test 2)" in out
    assert (plan.trainers, plan.shots, plan.test, plan.drawn()) == (TRAINERS, 10, 14, 24)
    assert plan.output.parts[-4:] == ("output", "own", plan.subject.dataset.label, "tiny")


def test_what_is_short_is_said_and_done_otherwise(photos):
    plan = planned(photos)
    assert "10 shots instead of 16: no class has more training pictures" in notes(plan)
    assert "all training pictures of 1 class with fewer than 10 are taken: bee" in notes(plan)
    assert "14 test pictures: chance alone moves an accuracy by up to 13 points" in notes(plan)
    assert not [note for note in planned(photos, shots=4).notes if "shots" in note]


def test_one_class_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has one class, bee; make a folder for each class"):
        planned(plant(tmp_path / "one", {"bee": 4}))


def test_a_missing_folder_is_named(tmp_path, capsys):
    assert main([str(tmp_path / "gone")]) == 2
    assert f"own: error: there is no folder {tmp_path}/gone;" in capsys.readouterr().err


def test_without_training_pictures_zero_shot_is_run_alone(tmp_path):
    plan = planned(plant(tmp_path / "tests", {"bee": 4, "cat": 4}, "test"))
    assert "there are no training pictures, so zero-shot CLIP alone is run" in notes(plan)
    assert [job.words[5] for job in plan.jobs()] == ["ZeroshotCLIP"]


def test_broken_pictures_are_left_out(photos):
    (photos / "cat" / "3.png").write_bytes(b"no picture")
    plan = planned(photos)
    assert "1 picture cannot be read; it is left out" in notes(plan)
    tested = 14 - any(item.impath.endswith("cat/3.png") for item in plan.subject.splits["test"])
    assert f"{tested} test pictures: chance alone" in notes(plan)
    assert "DATALOADER.SKIP_UNREADABLE True" in " ".join(plan.opts)


def test_faults_come_before_notes_and_numbers_are_words(tmp_path, capsys):
    plan = planned(plant(tmp_path / "two", {"bee": 2, "cat": 2}))
    picture(tmp_path / "two" / "dog" / "0.png")
    (tmp_path / "two" / "dog" / "0.png").write_bytes(b"no picture")
    assert "1 shot instead of 16" in notes(plan)
    assert "pictures of each class: 2\n" in capsys.readouterr().out
    planned(tmp_path / "two")
    kinds = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    kinds = [kind for kind in kinds if kind in ("FAULT", "note")]
    assert kinds == sorted(kinds)
    assert "FAULT" in kinds


def test_nothing_is_written_among_the_photos(photos):
    for output in (photos, photos / "results"):
        with pytest.raises(ValueError, match="lies in the folder of the photos; choose another"):
            planned(photos, output=output)


def test_the_device_chooses_the_config(photos, monkeypatch):
    assert planned(photos).config == "tiny"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    plan = planned(photos)
    assert (plan.config, plan.device.type) == ("vit_b16", "cuda")
    assert "MODEL.BACKBONE.NAME ViT-B/16" in " ".join(plan.opts)


def test_each_trainer_has_a_job_with_its_config(photos, tmp_path):
    plan = planned(photos, config="vit_b32", output=tmp_path / "out")
    jobs = plan.jobs()
    assert [job.words[5] for job in jobs] == list(TRAINERS)
    for job in jobs:
        assert job.folder.is_relative_to(tmp_path / "out" / plan.subject.dataset.label)
        assert f"--root {photos}" in " ".join(job.words)
        assert "MODEL.BACKBONE.NAME ViT-B/32" in " ".join(job.words)
        assert "DATASET.SUBSAMPLE_CLASSES all" in " ".join(job.words)


def test_what_is_done_is_not_counted(photos, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(cost, "measure", lambda *_: (cost.size_of(random_clip("tiny-emoji")), 10.0))
    plan = planned(photos, output=tmp_path / "out")
    for job in plan.jobs()[1:]:
        job.folder.mkdir(parents=True)
        (job.folder / "results.json").write_text("{}")
    announce(plan)
    assert f"To run: {TRAINERS[0]}; 10 shots, --config tiny\n" in capsys.readouterr().out


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_time_and_memory_are_said_first(photos, capsys, monkeypatch, device):
    size = cost.size_of(random_clip("tiny-emoji"))
    monkeypatch.setattr(cost, "measure", lambda *_: (size, 10.0))
    monkeypatch.setattr(own, "sample", lambda _: (0.5, 2**20))
    plan = planned(photos)
    plan.device = torch.device(device)
    announce(plan)
    out = capsys.readouterr().out
    assert "CLIP tiny-emoji on" in out
    epochs, runs, seconds = 20, 3, 3 * cost.START
    # Pictures of the test for each run, of CoOp's and Spotlighter's epochs, and of its bank.
    pictures = runs * 14 + 24 * (2 * epochs + own.BANK_PASSES)
    seconds += pictures / 10 + 0.5 * (runs * 14 + 24 * (2 + own.BANK_PASSES))
    steps = 2 * epochs * 1  # of 32 pictures, and there are 24
    seconds += 3 * steps * 3 * size.prompt_flop() / size.picture_flop() / 10
    if "CoOp" in TRAINERS:
        assert f"Time: about {own.minutes(seconds)}." in out
    assert "DATALOADER.CACHE_MB 25" in " ".join(plan.opts)
    assert ("(a formula, not measured on a GPU)" in out) == (device == "cuda")


def test_pictures_that_do_not_fit_are_read_each_time(photos, monkeypatch):
    plan = planned(photos)
    kept, read = (own.work_of(plan, "Spotlighter", keeps=keeps)[0] for keeps in (True, False))
    assert read.decoded - kept.decoded == 24 * 19  # one of 20 epochs is read in any case
    assert read.pictures == kept.pictures


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "1 minute"), (61, "2 minutes"), (5400, "90 minutes"), (9000, "2.5 hours")],
)
def test_times_are_words(seconds, words):
    assert own.minutes(seconds) == words


def test_a_dry_run_leaves_nothing(photos, tmp_path, capsys):
    assert main([str(photos), "--output", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "Results go to" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_folder_becomes_a_page_and_a_model(tmp_path, capsys, monkeypatch):
    """With zero-shot CLIP alone, which is the shortest; the second time nothing is run."""
    photos, out = plant(tmp_path / "photos", {"bee": 6, "cat": 6}), tmp_path / "out"
    before = sorted(photos.rglob("*"))
    whole = own.decide
    monkeypatch.setattr(own, "decide", lambda *a: replace(whole(*a), trainers=TRAINERS[:1]))
    assert main([str(photos), "--output", str(out)]) == 0
    said = capsys.readouterr().out
    (results,) = out.rglob("results.json")
    found = json.loads(results.read_text())
    right = round(found["accuracy"] * found["n"] / 100)
    assert f"ZeroshotCLIP: {right} of {found['n']} test pictures right" in said
    rows = pd.read_csv(results.parent / "predictions.csv")
    assert all((photos / path).is_file() for path in rows.path)
    assert "Accuracy of each class" in (out / "report.html").read_text()
    assert json.loads((out / "model" / "model.json").read_text())["class_names"] == ["bee", "cat"]
    assert sorted(photos.rglob("*")) == before
    kept = [results, *(out / "model").iterdir()]
    written = [path.stat().st_mtime_ns for path in kept]
    capsys.readouterr()
    assert main([str(photos), "--output", str(out)]) == 0
    said = capsys.readouterr().out
    assert "To run: nothing, as all is done; 3 shots, --config tiny\nResults go to" in said
    assert "1 run of 1 done before" in said
    assert f"{out / 'model'}: exported before, from the same run" in said
    assert [path.stat().st_mtime_ns for path in kept] == written
