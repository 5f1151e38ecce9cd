"""The door to CLIP weights."""

import sys
import types
from urllib.error import URLError

import pytest
import torch

from models import loading


def test_unknown_backbone_lists_what_exists():
    with pytest.raises(ValueError, match=r"unknown backbone 'ViT-Z/9'.*tiny-emoji, RN50"):
        loading.load_clip("ViT-Z/9")


def test_both_spellings_of_a_name_are_understood():
    torch.manual_seed(0)
    model = loading.load_clip("TINY-EMOJI", pretrained=False)
    assert model.visual.input_resolution == 64
    assert model.dtype == torch.float32


def test_missing_clip_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "clip", None)
    with pytest.raises(ModuleNotFoundError, match="pip install clip-anytorch 'setuptools<81'"):
        loading.import_clip()


def test_another_package_called_clip_is_told_apart(monkeypatch):
    other = types.ModuleType("clip")
    other.__file__ = "clip/__init__.py"
    monkeypatch.setitem(sys.modules, "clip", other)
    with pytest.raises(ModuleNotFoundError, match="is not OpenAI's; install it with"):
        loading.import_clip()


def test_failed_download_says_what_to_fetch(monkeypatch):
    clip = loading.import_clip()

    def offline(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr(clip, "load", offline)
    with pytest.raises(FileNotFoundError, match=r"ViT-B-16\.pt and put the file into"):
        loading.load_clip("ViT-B/16")


def test_missing_embedded_clip_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="make it anew with tools/pretrain_tiny_clip"):
        loading.load_tiny_clip(tmp_path / "none.pt")


def test_embedded_format_expands_to_the_full_vocabulary(tmp_path):
    torch.manual_seed(0)
    model = loading.random_clip("tiny-emoji")
    rows = torch.tensor([320, 1125, 49406, 49407])
    state = {k: v.half() for k, v in model.state_dict().items()}
    state["token_embedding.weight"] = state["token_embedding.weight"][rows]
    torch.save({"state_dict": state, "vocab_rows": rows}, tmp_path / "tiny.pt")
    loaded = loading.load_tiny_clip(tmp_path / "tiny.pt")
    table = loaded.token_embedding.weight
    assert table.shape == (loading.VOCABULARY, 128)
    assert torch.equal(table[rows], model.token_embedding.weight[rows].half().float())
    assert table[[0, 5]].abs().sum() == 0
    assert type(loaded).__module__ == "clip.model"
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
