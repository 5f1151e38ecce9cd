"""Schedules are measured with every score; a wrong one ends in a sentence."""

import pytest

from lab import schedules


def test_schedules_are_measured_by_score(capsys):
    arguments = ["1:64", "1:16,2:4", "--sets", "food", "--per-class", "1"]
    assert schedules.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines if "|" in line}
    assert list(rows)[2:] == ["all patches", "1:64", "1:16,2:4"]
    whole = rows["all patches"][0].strip()
    assert {cell.strip() for cell in rows["1:64"]} == {whole}  # nothing is dropped
    assert lines[-1].startswith("1 sets, val pictures of base classes")


@pytest.mark.parametrize("text", ["1", "1:a", "1:2:3", ""])
def test_a_schedule_in_another_form_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        schedules.main([text])
    assert "as 1:32,2:12" in capsys.readouterr().err
