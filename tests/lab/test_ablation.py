"""The ablation: every variant is a setting that train.py knows, and the table is of its runs."""

import argparse
import json
import subprocess

import pytest
from dassl.config import get_cfg_default

from lab import ablation
from runs.config import merge_pairs
from trainers import extend_cfg
from trainers.settings import read_settings
from trainers.spotlighter import SpotlighterSettings


@pytest.mark.parametrize("variant", list(ablation.VARIANTS))
def test_every_variant_is_a_setting_that_is_allowed(variant):
    cfg = get_cfg_default()
    extend_cfg(cfg)
    merge_pairs(cfg, ["TRAINER.SPOTLIGHTER.PROTOTYPES", "16", *ablation.options(variant).split()])
    read_settings(cfg, "SPOTLIGHTER", SpotlighterSettings)


def test_variants_have_folders_and_settings_of_their_own(tmp_path):
    folders = {ablation.folder(tmp_path, v) for v in ablation.VARIANTS}
    assert len(folders) == len(ablation.VARIANTS) == len(set(ablation.VARIANTS.values()))


def test_settings_of_all_variants_stand_before_a_variants_own(tmp_path, monkeypatch):
    seen = []

    def fake(command, env, **_):
        seen.append(env["OPTS"])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(ablation.subprocess, "run", fake)
    args = argparse.Namespace(output=tmp_path)
    monkeypatch.setenv("OPTS", "FEATURES.KEEP disk")
    ablation.run(args, "TOPK 3", "emoji_food", 1)
    monkeypatch.delenv("OPTS")
    ablation.run(args, "as configured", "emoji_food", 1)
    assert seen == ["FEATURES.KEEP disk TRAINER.SPOTLIGHTER.TOPK 3", ""]


def test_the_table_has_a_row_a_variant_and_a_failure_ends_in_one_sentence(
    tmp_path, monkeypatch, capsys
):
    def fake(args, variant, dataset, seed):
        if variant == "TOPK 3":
            raise ChildProcessError("TOPK 3 on emoji_food, seed 1: no disk")
        for half, classes in (("train_base", "base"), ("test_new", "new")):
            folder = ablation.folder(args.output, variant) / half / dataset
            folder.mkdir(parents=True, exist_ok=True)
            record = {"trainer": "Spotlighter", "dataset": dataset, "config": "c", "shots": 16}
            record |= {"seed": seed, "classes": classes, "accuracy": 50.0}
            record |= {"images_per_s": 1.0, "learned_parameters": 533, "nll": 1.25}
            (folder / "results.json").write_text(json.dumps(record))

    monkeypatch.setattr(ablation, "run", fake)
    assert ablation.main(["emoji_food", "--output", str(tmp_path)]) == 1
    assert "ablation: error: TOPK 3 on emoji_food, seed 1: no disk" in capsys.readouterr().err
    monkeypatch.setattr(ablation, "VARIANTS", {"as configured": "", "TOPK 1": "TOPK 1"})
    assert ablation.main(["emoji_food", "--output", str(tmp_path)]) == 0
    table = (tmp_path / "ablation.md").read_text()
    assert "as configured" in table
    assert "TOPK 1" in table
    assert "50.00" in table
    assert "1.250" in table
