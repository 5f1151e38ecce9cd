"""Kept patches against masks."""

from types import SimpleNamespace

import numpy as np
import torch

from lab import object_hits as sp
from models.clip.blocks import unit
from tests.tuners import make_spotlighted


def test_runs_without_a_selection_are_refused(run, tmp_path, capsys):
    run("CoOp", OPTIM__MAX_EPOCH=1)
    assert sp.main([str(tmp_path / "run")]) == 2
    assert "is a run of CoOp, which selects no patches" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert sp.main([str(tmp_path)]) == 2
    assert "holds no config.yaml" in capsys.readouterr().err


def test_attended_patches_are_counted_in_the_picture():
    attention = torch.tensor([[0.1, 0.6, 0.3]])
    model = SimpleNamespace(head=SimpleNamespace(options=SimpleNamespace(topk=2)))
    out = SimpleNamespace(tokens=SimpleNamespace(cls_attention=attention, positions=None))
    assert sp.attended(model, out).tolist() == [[1, 2]]
    out.tokens.positions = torch.tensor([[4, 7, 9]])
    assert sp.attended(model, out).tolist() == [[7, 9]]


def test_for_the_bank_no_class_has_a_say(clip_model, class_names, images):
    """Other prototypes and other texts change what is kept, and not what is kept for the bank."""
    model = make_spotlighted("CoOp", clip_model, class_names, topk=3).eval()
    head, random = model.head, torch.Generator().manual_seed(0)
    head.memory.direction.copy_(torch.randn(32, generator=random))
    head.memory.global_mass.fill_(1)
    head.memory.filled.fill_(True)
    found = []
    for _ in range(2):
        for bank in (head.memory.prototypes, head.memory.global_prototypes):
            bank.copy_(unit(torch.randn(bank.shape, generator=random)))
        model.clear_cache()
        out = model.forward_all(images)
        found.append([choose(model, out).tolist() for choose in (sp.of_the_bank, sp.kept)])
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]
    attention = out.tokens.cls_attention.log()
    activation = sum(
        (score - score.mean(1, keepdim=True)) / score.std(1, correction=0, keepdim=True)
        for score in (attention, out.tokens.patches @ head.memory.direction)
    )
    assert found[0][0] == activation.topk(3).indices.tolist()


def test_a_run_has_a_row_a_half_and_the_masks_decide(run, tmp_path, capsys, monkeypatch):
    """Half of the patches are the object: chance is 50 %, and whatever is kept lies on a half."""
    run("Spotlighter", OPTIM__MAX_EPOCH=1, DATASET__SUBSAMPLE_CLASSES="base")
    found = {}
    for share in (1.0, 0.5, 0.0):
        mask = np.arange(64) < 64 * share
        monkeypatch.setattr(sp, "load_masks", lambda folder, mask=mask: AnyPicture(mask))
        assert sp.main([str(tmp_path / "run")]) == 0
        rows = [line for line in capsys.readouterr().out.splitlines() if "| Toy" in line]
        found[share] = [[float(cell) for cell in row.split("|")[3:7]] for row in rows]
        assert [row.split("|")[2].strip() for row in rows] == ["base", "new"]
    assert found[1.0] == [[100.0] * 4] * 2  # chance, attention, bank, kept
    assert all(row == [0.0] * 4 for row in found[0.0])
    assert all(row[0] == 50 for row in found[0.5])


class AnyPicture:
    """The same mask for every picture."""

    def __init__(self, mask):
        self.mask = mask

    def __getitem__(self, path):
        assert path.startswith("test")
        return self.mask
