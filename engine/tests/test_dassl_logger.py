# ruff: noqa: T201 - what is printed is what is tested
import re
import sys

from dassl.utils import setup_logger


def read_after_flush(path):
    sys.stdout.flush()
    return path.read_text()


def test_output_goes_to_the_terminal_and_to_log_txt(tmp_path, capsys):
    setup_logger(str(tmp_path / "run"))
    print("a line")
    assert read_after_flush(tmp_path / "run" / "log.txt") == "a line\n"
    assert capsys.readouterr().out == "a line\n"


def test_a_rerun_keeps_the_first_log(tmp_path):
    (tmp_path / "log.txt").write_text("first run\n")
    setup_logger(str(tmp_path))
    print("second run")
    sys.stdout.flush()
    dated = [p for p in tmp_path.iterdir() if p.name != "log.txt"]
    assert len(dated) == 1
    assert re.fullmatch(r"log\.txt-\d{4}(-\d\d){5}", dated[0].name)
    assert dated[0].read_text() == "second run\n"
    assert (tmp_path / "log.txt").read_text() == "first run\n"


def test_a_file_name_is_taken_as_it_is(tmp_path):
    setup_logger(str(tmp_path / "other.log"))
    print("x")
    assert read_after_flush(tmp_path / "other.log") == "x\n"


def test_no_output_folder_changes_nothing():
    before = sys.stdout
    setup_logger(None)
    assert sys.stdout is before
