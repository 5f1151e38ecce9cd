"""The demo's runner, with a script that only pretends to train."""

import pytest

from tools import demo

FAKE = """\
trainer=$1 dataset=$2 seed=$3
echo "epoch [1/4] batch [5/5]"
echo "$trainer $dataset $seed $OMP_NUM_THREADS" >>"$OUTPUT/calls"
if [[ $dataset == bad ]]; then echo "no such data"; exit 2; fi
if [[ $dataset == endless ]]; then sleep 60; fi
"""


@pytest.fixture
def output(tmp_path, monkeypatch):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "base2new.sh").write_text(FAKE)
    (tmp_path / "output").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "POLL", 0.01)
    return tmp_path / "output"


def test_every_run_happens_once_and_zero_shot_comes_first(output, capsys):
    assert demo.main(["food", "faces", "--seeds", "1", "2", "--output", str(output)]) == 0
    calls = [line.split() for line in (output / "calls").read_text().splitlines()]
    expected = [(t, s) for s in "12" for t in ("ZeroshotCLIP", "CoOp", "Spotlighter")]
    for dataset in ("food", "faces"):
        assert [(c[0], c[2]) for c in calls if c[1] == dataset] == expected
    printed = capsys.readouterr().out
    assert "[12/12] Spotlighter on " in printed


def test_failure_stops_the_others_and_shows_the_log(output, capsys):
    arguments = ["bad", "endless", "--jobs", "2", "--output", str(output)]
    assert demo.main(arguments) == 1
    error = capsys.readouterr().err
    assert "ZeroshotCLIP on bad, seed 1 failed; the end of " in error
    assert error.rstrip().endswith("no such data")


def test_fraction_done_follows_the_last_epoch(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("loading\n")
    assert demo.fraction_done(log) == 0
    log.write_text("epoch [1/20] batch [1/2]\nepoch [5/20] batch [1/2]\n")
    assert demo.fraction_done(log) == 0.25
