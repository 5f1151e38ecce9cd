"""What a RunState counts."""

import pytest

from runs.state import RunState


@pytest.mark.parametrize(("clock", "seconds"), [("processor", 3.0), ("wall", 50.0)])
def test_training_is_counted_on_the_clock_of_the_device(monkeypatch, clock, seconds):
    times = {"process_time": iter((1.0, 4.0)), "perf_counter": iter((100.0, 150.0))}
    for name, values in times.items():
        monkeypatch.setattr(f"runs.state.{name}", values.__next__)
    state = RunState(train_s=0.0, train_clock=clock)
    with state.training():
        pass
    assert state.train_s == seconds


def test_what_is_not_known_stays_unknown():
    state = RunState()
    with state.training():
        pass
    assert state.train_s is None
