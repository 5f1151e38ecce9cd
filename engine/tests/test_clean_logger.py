"""A log that cannot be written is no reason to lose a run."""

import os
import sys
from pathlib import Path

import pytest
from dassl.engine import TrainerBase
from dassl.utils import Logger


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_ends_the_file_and_not_the_run(capsys):
    log = Logger("/dev/full")
    for line in ("one\n", "two\n"):
        log.write(line)
        log.flush()
    log.close()
    printed = capsys.readouterr().out
    assert printed.count("The log file is no longer written: [Errno 28]") == 1
    assert printed.endswith("two\n")


class FullWriter:
    def add_scalar(self, *_):
        raise OSError(28, "No space left on device")

    close = add_scalar


def test_tensorboard_on_a_full_disk_ends_and_the_run_goes_on(caplog):
    trainer = TrainerBase()
    trainer._writer = FullWriter()
    trainer.write_scalar("a", 1.0)
    trainer.write_scalar("a", 2.0)
    assert [r.message for r in caplog.records if "TensorBoard" in r.message] == [
        "TensorBoard's file is no longer written: [Errno 28] No space left on device"
    ]


def test_a_reader_that_has_gone_ends_the_console_and_not_the_file(tmp_path, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as console:
        monkeypatch.setattr(sys, "stdout", console)
        log = Logger(tmp_path / "log.txt")
        for line in ("one\n", "two\n"):
            log.write(line)
            log.flush()
        log.close()
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\n"
