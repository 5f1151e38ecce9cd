"""The embedded tiny CLIP answers sensibly on pictures of the embedded benchmark."""

from pathlib import Path

import pytest
import torch

from lab.pretrain.evaluate import zero_shot_of
from models.clip.load import load_tiny_clip

ASSET = Path(__file__).parents[2] / "assets/tiny_clip.pt"


@pytest.fixture(scope="module")
def model():
    return load_tiny_clip(ASSET)


def test_the_asset_is_small():
    assert ASSET.stat().st_size <= 10_000_000


def test_the_asset_has_the_documented_form():
    asset = torch.load(ASSET, weights_only=True)
    assert set(asset) == {"state_dict", "vocab_rows"}
    rows = asset["vocab_rows"]
    assert rows.dtype == torch.int64
    assert len(rows) == len(asset["state_dict"]["token_embedding.weight"]) == len(rows.unique())
    assert all(weight.dtype == torch.float16 for weight in asset["state_dict"].values())


def test_the_asset_is_a_plain_clip(model):
    assert type(model).__module__ == "clip.model"
    assert (model.visual.input_resolution, model.context_length) == (64, 77)
    assert model.token_embedding.weight.shape[0] == 49408
    assert model.token_embedding.weight.dtype == torch.float32


def test_zero_shot_is_far_above_chance_on_every_set(model):
    table = zero_shot_of(model, split="val", per_class=2)  # 700 pictures, 25 classes a half
    assert (table["mean"]["base"] + table["mean"]["new"]) / 2 > 40
    for name, row in table.items():
        assert min(row.values()) > 20, name
