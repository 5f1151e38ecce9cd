"""In which order jobs begin, and what the bars say."""

from itertools import permutations
from pathlib import Path

import pytest

from tools import sweep
from tools.sweeps.protocols import Job
from tools.sweeps.schedule import BESIDE, Bars, State, longest_first

SHORT_TO_LONG = ("ZeroshotCLIP", "CoOp", "MaPLe", "PromptSRC")


def job(name, steps=0.0, *needs):
    return Job(f"{name}:tiny on food", Path(name), (), tuple(map(Path, needs)), steps)


def end_of(jobs):
    """When the last of some jobs ends, two at a time, a second for each step."""
    time, running, done, left = 0, {}, set(), list(jobs)
    while left or running:
        for one in list(left):
            if len(running) < 2 and done.issuperset(one.needs):
                running[one.folder] = time + one.steps
                left.remove(one)
        time = min(running.values())
        over = {folder for folder, end in running.items() if end == time}
        running = {folder: end for folder, end in running.items() if folder not in over}
        done |= over
    return time


def test_a_job_counts_with_those_that_wait_for_it():
    jobs = [job("short", 3), job("student", 6, "teacher"), job("long", 9), job("teacher", 4)]
    found = [one.folder.name for one in longest_first(jobs)]
    assert found == ["teacher", "long", "student", "short"]


def test_two_places_are_filled_as_well_as_any_order_can():
    jobs = [job("b", 2), job("d", 4, "c"), job("a", 1), job("e", 5), job("c", 3)]
    best = min(map(end_of, permutations(jobs)))
    assert end_of(longest_first(jobs)) == best < end_of(jobs)


def test_a_test_stands_behind_its_training_and_a_trainer_beside_itself():
    jobs = [job(name, 5) for name in ("B1", "A1", "B2", "A2")]
    jobs = [Job(f"{j.name[0]}:tiny on {j.name}", j.folder, (), (), j.steps) for j in jobs]
    tests = [Job(f"{j.name} (new)", j.folder / "new", (), (j.folder,)) for j in jobs]
    pairs = [one for pair in zip(jobs, tests, strict=True) for one in pair]
    found = [str(one.folder) for one in longest_first([*pairs, job("long", 6), job("zero")])]
    expected = ["long", "A1", "A1/new", "A2", "A2/new", "B1", "B1/new", "B2", "B2/new", "zero"]
    assert found == expected


def test_of_equal_trainings_that_which_keeps_patches_begins():
    jobs = [job("CoOp", 5), job("Spotlighter", 5), job("TextRefiner", 5), job("Another", 5)]
    found = [one.folder.name for one in longest_first(jobs)]
    assert found == ["Spotlighter", "TextRefiner", "CoOp", "Another"]


def test_the_bar_of_the_sweep_moves_with_steps(tmp_path, capsys):
    long, short, before = job("long", 90), job("short"), job("before", 40)
    bars = Bars(tmp_path, [long, short, before], [before])
    (whole,) = bars.progress.tasks
    assert (whole.completed, whole.total) == (40 + BESIDE, 90 + 40 + 3 * BESIDE)
    bars.start(long)
    (tmp_path / long.log).parent.mkdir()
    (tmp_path / long.log).write_text("epoch [1/3] batch [5/5]")
    bars.update()
    assert whole.completed == pytest.approx(40 + BESIDE + 90 / 3)
    assert [task.completed for task in bars.progress.tasks[1:]] == [pytest.approx(100 / 3)]
    bars.end(long, State.DONE)
    assert (whole.completed, whole.description) == (90 + 40 + 2 * BESIDE, "all jobs 2/3")
    bars.end(short, State.SKIPPED)
    assert whole.finished
    assert "[3/3] short:tiny on food: not run" in capsys.readouterr().out


def test_a_sweep_begins_with_the_longest_and_a_serial_one_as_listed(project):
    words = ["--trainers", *SHORT_TO_LONG, "--datasets", "emoji_food"]
    assert sweep.main(["--processes", "1", "--output", "swept", *words]) == 0
    assert sweep.main(["--serial", "--output", "listed", *words]) == 0
    starts = [Path(folder).parts for folder in project.events("start")]
    trained = {
        output: [parts[4] for parts in starts if parts[:2] == (output, "train_base")]
        for output in ("swept", "listed")
    }
    assert trained["swept"] == [*reversed(SHORT_TO_LONG)]
    assert trained["listed"] == [*SHORT_TO_LONG]
