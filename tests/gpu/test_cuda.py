"""What a GPU must give: the CPU's numbers, in every precision, without waiting for the host.

Run with `bash scripts/test.sh -m gpu`; without CUDA each test is skipped, and the reason shown.
"""

import copy

import pytest
import torch

from models.clip.blocks import cast_products
from models.clip.prune import TokenPruner
from runs.precision import Precision
from tests import tuners
from tests.conftest import make_clip

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
LABEL = torch.tensor([0, 3, 3, 5])


@pytest.fixture
def exact_products():
    """No TF32: products in full float32, as on the CPU."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def on_both(name, class_names):
    cpu = tuners.make_tuner(name, make_clip(), class_names)
    tuners.shake(cpu.learned)
    return cpu, copy.deepcopy(cpu).cuda()


def total(model, images, label):
    return torch.stack(list(model.step(images, label).losses.values())).sum()


@pytest.mark.parametrize("name", tuners.TUNERS)
@pytest.mark.parametrize("keep", [None, 5])
@pytest.mark.usefixtures("exact_products")
def test_logits_losses_and_gradients_are_the_cpus(class_names, images, name, keep):
    cpu, gpu = on_both(name, class_names)
    if keep is not None:
        for model in (cpu, gpu):
            model.prune(TokenPruner(at=(1,), keep=(keep,), width=64).to(model.logit_scale.device))
    with torch.no_grad():
        found = gpu.eval()(images.cuda()).cpu()
        torch.testing.assert_close(found, cpu.eval()(images), rtol=1e-4, atol=1e-3)
    losses = total(cpu.train(), images, LABEL), total(gpu.train(), images.cuda(), LABEL.cuda())
    torch.testing.assert_close(losses[1].cpu(), losses[0], rtol=1e-4, atol=1e-4)
    for loss in losses:
        loss.backward()
    for one, other in zip(cpu.learned.parameters(), gpu.learned.parameters(), strict=True):
        largest = max(p.grad.abs().max() for p in cpu.learned.parameters())
        assert (other.grad.cpu() - one.grad).abs().max() < 1e-3 * largest


@pytest.mark.parametrize("name", tuners.TUNERS)
@pytest.mark.parametrize("precision", ["fp16", "amp", "bf16"])
def test_small_precisions_are_finite_and_near(class_names, images, name, precision):
    cpu, gpu = on_both(name, class_names)
    policy = Precision(precision, gpu, torch.device("cuda"))
    with policy.autocast():
        loss = total(gpu.train(), images.cuda(), LABEL.cuda())
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in gpu.learned.parameters())
    with torch.no_grad(), policy.autocast():
        found = gpu.eval()(images.cuda()).float().cpu().softmax(-1)
        expected = cpu.eval()(images).softmax(-1)
    assert (found - expected).abs().max() < 0.2


@pytest.mark.parametrize("base", tuners.BASES)
def test_the_forward_pass_never_waits_for_the_host(class_names, images, base):
    model = tuners.make_spotlighted(base, make_clip(), class_names).cuda()
    model.base.prune(TokenPruner(at=(1,), keep=(6,), width=64).cuda())
    images, label = images.cuda(), LABEL.cuda()
    for mode in (True, False):
        model.train(mode)
        model(images)  # what is kept for an evaluation is made here
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            model(images)
            if mode:
                total(model, images, label)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_chunks_of_the_text_tower_need_less_memory(class_names):
    names = [f"{name} {i}" for i in range(50) for name in class_names]
    peaks = []
    for chunk in (0, 20):
        model = tuners.make_tuner("CoOp", make_clip(), names).cuda().train()
        model.text.chunk = chunk
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model.encode_text().sum().backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < peaks[0] / 2


def test_bfloat16_weights_are_half_as_large(class_names):
    model = tuners.make_tuner("CoOp", make_clip(), class_names).cuda()
    size = sum(p.nbytes for p in model.visual.parameters())
    cast_products(model.visual, torch.bfloat16)
    assert sum(p.nbytes for p in model.visual.parameters()) < 0.6 * size
