"""Kept patches against masks."""

from types import SimpleNamespace

import torch

from tools import spotlight_precision as sp


def test_runs_without_a_selection_are_refused(run, tmp_path, capsys):
    run("CoOp", OPTIM__MAX_EPOCH=1)
    assert sp.main([str(tmp_path / "run")]) == 2
    assert "is a run of CoOp, which selects no patches" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert sp.main([str(tmp_path)]) == 2
    assert "holds no config.yaml" in capsys.readouterr().err


def test_attended_patches_are_counted_in_the_picture():
    attention = torch.tensor([[0.1, 0.6, 0.3]])
    selection = SimpleNamespace(indices=torch.tensor([[7, 9]]))
    out = SimpleNamespace(
        tokens=SimpleNamespace(cls_attention=attention, positions=None),
        head=SimpleNamespace(selection=selection),
    )
    assert sp.attended(out).tolist() == [[1, 2]]
    out.tokens.positions = torch.tensor([[4, 7, 9]])
    assert sp.attended(out).tolist() == [[7, 9]]
    assert sp.kept(out).tolist() == [[7, 9]]
