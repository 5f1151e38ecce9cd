"""Half precision, float32 and float64: what each part of a model comes out as."""

import pytest
import torch

from models.clip.blocks import at_least_float32, cast_products
from models.clip.image_tower import VisualEncoder
from models.clip.text_tower import TextEncoder
from runs.precision import cast_towers
from tests.conftest import make_clip
from tests.tuners import BASES, TUNERS, make_spotlighted, make_tuner


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float32",) * 2, ("float64",) * 2],
)
def test_half_precision_is_widened_and_float64_stays(given, wanted):
    found = at_least_float32(torch.ones(2, dtype=getattr(torch, given)))
    assert found.dtype == getattr(torch, wanted)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("base", BASES)
def test_a_float64_model_computes_nothing_in_float32(class_names, images, base):
    """A value that was rounded to float32 on the way has zeros in its last bits."""
    model = make_spotlighted(base, make_clip(), class_names).eval()
    for part in model.forward_all(images).logits, model.base(images):
        assert part.dtype == torch.float64
        assert not torch.equal(part.float().double(), part)
    wrong = [k for k, v in model.state_dict().items() if getattr(v, "dtype", 0) == torch.float32]
    assert wrong == []


def test_bfloat16_image_tower_stays_near_and_gives_float32(clip_model, class_names, images):
    model = make_tuner("CoOp", clip_model, class_names)
    exact = model.encode_image(images).cls
    cast_products(model.visual, torch.bfloat16)
    near = model.encode_image(images).cls
    assert near.dtype == torch.float32
    assert (exact * near).sum(-1).min() > 0.99
    assert not torch.equal(exact, near)


@pytest.mark.parametrize("name", TUNERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_towers_in_half_precision_stay_near(class_names, images, name, dtype):
    """What a GPU computes with PREC fp16, through the same code."""
    exact, half = (make_tuner(name, make_clip(), class_names) for _ in range(2))
    cast_towers(half, dtype, (VisualEncoder, TextEncoder))
    step = half.train().step(images, torch.tensor([0, 3, 3, 5]))
    torch.stack(list(step.losses.values())).sum().backward()
    for parameter in half.learned.parameters():
        assert parameter.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all()
    with torch.no_grad():
        found, expected = half.eval()(images).softmax(-1), exact.eval()(images).softmax(-1)
    assert (found - expected).abs().max() < 0.2
