"""What a device has left: the least of all limits."""

import math
import resource

import torch

from models.clip import text_tower as module
from models.clip.text_tower import free_memory

CPU = torch.device("cpu")


def test_the_machine_bounds_it():
    assert 0 < free_memory(CPU) < 2**50


def test_a_control_group_bounds_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CGROUPS", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    unbounded = free_memory(CPU)
    (tmp_path / "memory.max").write_text("1000\n")
    assert unbounded > free_memory(CPU) == 300
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200\n")
    assert free_memory(CPU) == 500  # a cache of files is given back


def test_ulimit_bounds_it(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**50, 2**50))
    assert free_memory(CPU) < 2**50
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1, 1))
    assert free_memory(CPU) < 0


def test_a_device_that_does_not_tell_has_no_bound():
    assert free_memory(torch.device("meta")) == math.inf
