"""Checkpoints: plain, whole, and read without executing anything."""

import contextlib
import os
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from dassl.utils import load_checkpoint, resume_from_checkpoint, save_checkpoint
from test_dassl_checkpoint import one_epoch, state_of, trained


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("warmup", ["constant", "linear"])
def test_a_checkpoint_holds_plain_data_only(tmp_path, warmup):
    save_checkpoint(state_of(*trained(2, warmup=warmup), 2), tmp_path)
    found = torch.load(tmp_path / "model.pth.tar-2", weights_only=True)
    assert found["scheduler"]["successor"]["last_epoch"] == 1
    assert "optimizer" not in found["scheduler"]


def published(tmp_path, epochs):
    """A checkpoint as upstream writes it: the schedule's state holds the successor object."""
    model, optimizer, scheduler = trained(epochs)
    state = state_of(model, optimizer, scheduler, epochs)
    state["scheduler"] = {k: v for k, v in vars(scheduler).items() if k != "optimizer"}
    assert type(state["scheduler"]["successor"]).__name__ == "CosineAnnealingLR"
    torch.save(state, tmp_path / f"model.pth.tar-{epochs}")
    (tmp_path / "checkpoint").write_text(f"model.pth.tar-{epochs}\n")
    return model, optimizer, scheduler


def test_published_checkpoints_are_read_with_a_plain_schedule(tmp_path):
    published(tmp_path, 3)
    with pytest.raises(Exception, match="CosineAnnealingLR"):
        torch.load(tmp_path / "model.pth.tar-3", weights_only=True)
    found = load_checkpoint(tmp_path / "model.pth.tar-3")
    assert found["scheduler"]["successor"]["T_max"] == 6
    assert type(found["scheduler"]["successor"]) is dict
    assert found["epoch"] == 3


def test_published_checkpoints_can_be_resumed(tmp_path):
    parts = published(tmp_path, 3)
    resumed = trained(0, seed=1)
    assert resume_from_checkpoint(tmp_path, *resumed) == 3
    for _ in range(2):
        one_epoch(*parts)
        one_epoch(*resumed)
    assert torch.equal(parts[0].weight, resumed[0].weight)
    assert parts[1].param_groups[0]["lr"] == resumed[1].param_groups[0]["lr"]


def test_a_whole_pickled_warmup_scheduler_is_read(tmp_path):
    _, _, scheduler = trained(2)
    torch.save({"scheduler": scheduler}, tmp_path / "x.pth")
    assert load_checkpoint(tmp_path / "x.pth")["scheduler"]["cons_lr"] == 1e-5


def test_a_foreign_object_is_refused_and_never_executed(tmp_path):
    trace = tmp_path / "trace"
    torch.save({"state_dict": {}, "epoch": Evil(trace)}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth is refused, because it pickles posix\.system"):
        load_checkpoint(tmp_path / "evil.pth")
    assert not trace.exists()


def test_the_allow_list_ends_with_the_call(tmp_path):
    published(tmp_path, 1)
    before = set(torch.serialization.get_safe_globals())  # a list in no order
    load_checkpoint(tmp_path / "model.pth.tar-1")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"])
def test_a_broken_file_is_said_to_be_broken(tmp_path, content):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.pth .* is it complete\?"):
        load_checkpoint(tmp_path / "broken.pth")
    with pytest.raises(ValueError, match="got none"):
        load_checkpoint("")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch, step):
    state = {"state_dict": {"w": torch.ones(1)}, "epoch": 1}
    save_checkpoint(state, tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), full)
    with pytest.raises(OSError, match=r"No space left on device: '.*model\.pth\.tar-1'"):
        save_checkpoint({**state, "state_dict": {}}, tmp_path)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "model.pth.tar-1")["state_dict"]["w"].item() == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "model.pth.tar-1"]


def test_files_are_on_the_disk_before_they_get_their_names(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr(Path, "replace", lambda *a: (calls.append("replace"), replace(*a)))
    save_checkpoint({"state_dict": {}, "epoch": 1}, tmp_path)
    assert calls == 2 * ["fsync", "replace", "fsync"]  # content, name, folder; then the pointer


def equal(one, other):
    return one["epoch"] == other["epoch"] and torch.equal(one["w"], other["w"])


def test_no_flipped_bit_passes_in_silence(tmp_path):
    state = {"state_dict": {}, "w": torch.randn(20), "epoch": 3}
    save_checkpoint(state, tmp_path)
    path = tmp_path / "model.pth.tar-3"
    whole, torch_alone = path.read_bytes(), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
            torch_alone += not equal(torch.load(path, weights_only=True), state)
        with contextlib.suppress(ValueError), warnings.catch_warnings(action="ignore"):
            assert equal(load_checkpoint(path), state), place
    assert torch_alone > 50  # what it would let pass


def test_a_compressed_part_is_not_unpacked(tmp_path):
    """A few megabytes could become gigabytes."""
    with zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(1000))
    with pytest.raises(ValueError, match=r"x\.pth is damaged: its parts are compressed"):
        load_checkpoint(tmp_path / "x.pth")


def test_a_damaged_part_is_named(tmp_path):
    save_checkpoint({"state_dict": {"w": torch.ones(1000)}, "epoch": 1}, tmp_path)
    path = tmp_path / "model.pth.tar-1"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"model\.pth\.tar-1 is damaged: the checksum of its part .*data/0 is"
    ):
        load_checkpoint(path)


def test_a_checkpoint_that_does_not_fit_is_refused_with_its_faults(tmp_path):
    model, optimizer, scheduler = trained(1)
    save_checkpoint(state_of(model, optimizer, scheduler, 1), tmp_path)
    other = torch.nn.Linear(4, 2, bias=False)
    with pytest.raises(ValueError, match=r"model\.pth\.tar-1 does not fit Linear: .*size mismatch"):
        resume_from_checkpoint(tmp_path, other)


def test_a_schedule_without_warmup_does_not_pass_for_one_with(tmp_path):
    model, optimizer, scheduler = trained(1)
    state = state_of(model, optimizer, scheduler.successor, 1)
    save_checkpoint(state, tmp_path)
    with pytest.raises(ValueError, match=r"set OPTIM\.WARMUP_EPOCH as it was"):
        resume_from_checkpoint(tmp_path, model, optimizer, scheduler)


def test_nothing_to_resume_from_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to resume from"):
        resume_from_checkpoint(tmp_path, torch.nn.Linear(1, 1))
