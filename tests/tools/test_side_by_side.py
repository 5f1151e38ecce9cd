"""Runs side by side, with a script that only pretends to train."""

import pytest

from tools import side_by_side

FAKE = """\
trainer=$1 dataset=$2 seed=$3
echo "epoch [1/4] batch [5/5]"
echo "$trainer $dataset $seed $OMP_NUM_THREADS ${4:-} ${OPTS:-}" >>"$OUTPUT/calls"
if [[ $dataset == bad ]]; then echo "no such data"; exit 2; fi
if [[ $dataset == endless ]]; then sleep 60; fi
"""


@pytest.fixture
def output(tmp_path, monkeypatch):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "base2new.sh").write_text(FAKE)
    (tmp_path / "output").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(side_by_side, "POLL", 0.01)
    return tmp_path / "output"


def test_every_run_happens_once_and_zero_shot_comes_first(output, capsys):
    assert side_by_side.main(["food", "faces", "--seeds", "1", "2", "--output", str(output)]) == 0
    calls = [line.split() for line in (output / "calls").read_text().splitlines()]
    expected = [(t, s) for s in "12" for t in ("ZeroshotCLIP", "CoOp", "Spotlighter")]
    for dataset in ("food", "faces"):
        assert [(c[0], c[2]) for c in calls if c[1] == dataset] == expected
    printed = capsys.readouterr().out
    assert "[12/12] Spotlighter on " in printed


def test_failure_stops_the_others_and_shows_the_log(output, capsys):
    arguments = ["bad", "endless", "--jobs", "2", "--output", str(output)]
    assert side_by_side.main(arguments) == 1
    error = capsys.readouterr().err
    assert "ZeroshotCLIP on bad, seed 1 failed; the end of " in error
    assert error.rstrip().endswith("no such data")


def test_fraction_done_follows_the_last_epoch(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("loading\n")
    assert side_by_side.fraction_done(log) == 0
    log.write_text("epoch [1/20] batch [1/2]\nepoch [5/20] batch [1/2]\n")
    assert side_by_side.fraction_done(log) == 0.25


def test_a_config_is_passed_on_and_a_student_learns_from_its_teacher(output):
    trainers = ["PromptSRC", "PromptKD", "Spotlighter:tiny_emoji_promptkd", "CoOp"]
    arguments = ["food", "--seeds", "3", "--output", str(output), "--trainers", *trainers]
    assert side_by_side.main(arguments) == 0
    calls = (output / "calls").read_text().splitlines()
    teacher = f"{output}/train_base/food/shots_16/PromptSRC/tiny_emoji/seed3"
    taught = f"TRAINER.PROMPTKD.TEACHER_DIR {teacher}"
    assert [call.split()[0] for call in calls] == [name.split(":")[0] for name in trainers]
    assert [call.endswith(taught) for call in calls] == [False, True, True, False]
    assert "tiny_emoji_promptkd" in calls[2]
