"""What runs take, against counted operations and measured memory."""

from pathlib import Path

import pytest
import torch

from lab.bench.counts import count_gflop, extra_mb
from models.clip.image_tower import build_visual_encoder
from models.clip.load import random_clip
from tools.shared import cost
from tools.shared.cost import Size, Work

VIT_B16 = Size(149_620_737, 12, 768, 197, 12, 512)


@pytest.fixture(scope="module")
def tiny():
    return random_clip("tiny-emoji")


@torch.no_grad()
def test_operations_are_those_that_torch_counts(tiny):
    """But for the patch embedding and the projections, some percent of so small a tower."""
    size = cost.size_of(tiny)
    counted = count_gflop(lambda: tiny.visual(torch.zeros(2, 3, 64, 64))) * 1e9 / 2
    assert 0.9 < size.picture_flop() / counted <= 1


def test_operations_of_a_published_tower():
    """ViT-B/16 is known for 17.6 * 10^9 multiplications, with as many sums, a picture."""
    assert VIT_B16.picture_flop() / 2e9 == pytest.approx(17.5, abs=0.3)


def test_memory_of_many_classes_is_about_what_was_measured():
    """A step of CoOp on ViT-B/16, batch 32, 1000 classes: 1,129 MB (docs/performance.md)."""
    found = cost.memory(VIT_B16, 1000, 32) - cost.FLOAT * VIT_B16.parameters
    assert found / 1e6 == pytest.approx(1129, rel=0.15)


def test_the_page_of_advice_has_the_memory_of_the_formula(tiny):
    page = (Path(__file__).parents[3] / "docs" / "choosing.md").read_text(encoding="utf-8")
    for name, size in (("tiny", cost.size_of(tiny)), ("ViT-B/16", VIT_B16)):
        work = ((100, 4), (100, 32), (1000, 32), (100, 100))  # classes, batch
        cells = (f"{cost.memory(size, *one) / 1e9:.2f}" for one in work)
        assert f"\n| {name} | {' | '.join(cells)} |\n" in page


def test_memory_of_pictures_is_about_what_is_measured(tiny):
    size, images = cost.size_of(tiny), torch.zeros(64, 3, 64, 64)
    tower = build_visual_encoder(tiny.visual)
    with torch.no_grad():
        measured = extra_mb(lambda: tower(images)) * 1e6
    found = cost.memory(size, 1, 64) - cost.FLOAT * size.parameters
    assert found == pytest.approx(measured, rel=0.25)


def test_more_classes_and_larger_batches_need_more():
    assert cost.memory(VIT_B16, 2000, 32) > cost.memory(VIT_B16, 1000, 32)
    assert cost.memory(VIT_B16, 10, 64) > cost.memory(VIT_B16, 10, 32)


def test_time_is_pictures_text_and_reading():
    size = Size(0, 1, 64, 10, 2, 64)
    work = Work(pictures=1000, steps=20, decoded=50)
    text = 3 * 20 * 7 * size.prompt_flop() / size.picture_flop()
    expected = cost.START + 1000 / 40 + text / 40 + 50 * 0.1
    assert cost.seconds(size, work, 7, rate=40, reading=0.1) == pytest.approx(expected)


def test_the_tower_is_timed_here():
    size, rate = cost.measure("tiny-emoji", torch.device("cpu"))
    assert (size.layers, size.width, size.tokens) == (4, 128, 65)
    assert rate > 0
