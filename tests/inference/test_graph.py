"""Exported programs: the model's logits for batches of any size, and nothing that is not used."""

import pytest
import torch

from inference.graph import BATCH, ExportForm, trace
from models.classifier import ZeroShotCLIP
from tests.conftest import assert_close, make_clip
from tests.tuners import TUNERS, make_spotlighted, make_tuner, shake

pytestmark = pytest.mark.usefixtures("float64")

SIZES = (1, 2, 7)


def traced(model, size=32):
    """The program, its output names, and the model's logits of some batches."""
    if model.learned is not None:
        shake(model)
    model.eval()
    images = [torch.randn(n, 3, size, size) for n in SIZES]
    with torch.no_grad():
        wanted = [(image, model(image)) for image in images]
    form = ExportForm(model)
    return trace(form, (size, size)), form.output_names, wanted


def agree(program, wanted):
    assert BATCH not in SIZES
    run = program.module()
    for image, logits in wanted:
        assert_close(run(image)[0], logits)


@pytest.mark.parametrize("name", TUNERS)
def test_every_tuner(clip_model, class_names, name):
    program, outputs, wanted = traced(make_tuner(name, clip_model, class_names))
    agree(program, wanted)
    assert outputs == ["logits"]
    in_graph = [key for key in program.state_dict if ".text." in key]
    assert bool(in_graph) == (name == "CoCoOp")
    assert not any("token_embedding" in key or "teacher" in key for key in program.state_dict)
    assert name == "CoCoOp" or not any("token_suffix" in key for key in program.constants)


def test_spotlighter_on_text_of_each_picture_with_its_kept_patches(clip_model, class_names):
    model = make_spotlighted("CoCoOp", clip_model, class_names)
    shake(model)
    model.eval()
    image = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        out = model.forward_all(image)
    form = ExportForm(model)
    logits, kept = trace(form, (32, 32)).module()(image)
    assert form.output_names == ["logits", "kept_patches"]
    assert_close(logits, out.logits)
    assert torch.equal(kept, out.head.selection.indices)


def test_a_resnet_and_zero_shot(resnet_clip, class_names):
    agree(*traced(make_tuner("CoOp", resnet_clip, class_names))[::2])
    sentences = [[f"a photo of a {name}."] for name in class_names]
    agree(*traced(ZeroShotCLIP(make_clip(), sentences))[::2])


def test_a_random_selection_is_refused(clip_model, class_names):
    with pytest.raises(ValueError, match="SELECT random keeps other patches each time"):
        ExportForm(make_spotlighted("CoOp", clip_model, class_names, select="random"))
