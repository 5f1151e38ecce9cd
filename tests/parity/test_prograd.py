"""ProGrad against its formulation, picture by picture, on the towers of both packages."""

import pytest
import torch

from lab.published.common import normalise
from runs.precision import Precision
from tests.conftest import assert_close, make_clip
from tests.tuners import WORDS, make_run, make_tuner, shake
from trainers.prograd import ProGrad, project

pytestmark = pytest.mark.usefixtures("float64")

LABEL = torch.tensor([0, 3, 3, 5])
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
CPU = torch.device("cpu")


def make_prograd(clip, class_names, n_ctx, **loss):
    run = make_run(class_names)
    run.cfg.LOSS.merge_from_list([word for pair in loss.items() for word in pair])
    settings = ProGrad.settings_class(CTX_INIT=WORDS, N_CTX=n_ctx)
    return ProGrad.build(clip, list(class_names), settings, run).train()


def descend(model, images, label, optimiser):
    step = model.step(images, label)
    total = torch.stack(list(step.losses.values())).sum()
    Precision("fp32", model, CPU).descend(optimiser, total, step.general)


def published_gradient(towers, ctx, fixed, pictures, class_names, *, temperature, strength):
    """The gradient of the cross-entropy, changed by that of the divergence; and their product."""
    sentences = [f"{' '.join(['X'] * len(ctx))} {name}." for name in class_names]
    text = normalise(towers.prompted([s.replace("_", " ") for s in sentences], ctx))
    own, general = [], []
    for feature, one in zip(*pictures, strict=True):
        logits = torch.stack([towers.scale * (feature @ t) for t in text])
        known = torch.stack([towers.scale * (feature @ t) for t in fixed]) / temperature
        known = known.exp() / known.exp().sum()
        log = logits / temperature - (logits / temperature).exp().sum().log()
        own.append(logits.exp().sum().log() - logits[one])
        agreement = sum(p * q for p, q in zip(known, log, strict=True))
        general.append(-temperature * temperature * agreement)
    (b,) = torch.autograd.grad(sum(general) / len(general), ctx, retain_graph=True)
    (a,) = torch.autograd.grad(sum(own) / len(own), ctx)
    product = sum(x * y for x, y in zip(a.flatten(), b.flatten(), strict=True))
    unit = b / b.norm()
    return (a - strength * (product / b.norm()) * unit if product < 0 else a), product


@pytest.mark.parametrize("strength", [1.0, 0.8])
def test_three_sgd_steps(towers, strength, class_names):
    ours = make_prograd(towers.clip, class_names, 6, LAMBDA=strength, T=2.0)
    shake(ours.learned, size=0.5)
    ctx = ours.learned.ctx.detach().clone().requires_grad_()
    images, fixed = towers.pictures(4), normalise(towers.class_text(class_names))
    features = normalise(towers.image(images))
    label = (features @ fixed.T).argmin(-1)  # against what CLIP says
    optimiser, reference = (torch.optim.SGD(p, **SGD) for p in ([ours.learned.ctx], [ctx]))
    products = []
    for _ in range(3):
        descend(ours, images, label, optimiser)
        ctx.grad, product = published_gradient(
            towers, ctx, fixed, (features, label), class_names, temperature=2.0, strength=strength
        )
        products.append(product)
        reference.step()
        assert_close(ours.learned.ctx.detach(), ctx.detach())
    assert min(products) < 0  # else this test would not see the projection


def test_words_are_the_last_vectors_and_the_others_are_0(towers, class_names):
    ours = make_prograd(towers.clip, class_names, 6)
    assert (ours.learned.ctx[:2] == 0).all()
    sentences = [f"X X a photo of a {name.replace('_', ' ')}." for name in class_names]
    zeros = torch.zeros(2, ours.learned.ctx.shape[1])
    expected = normalise(towers.prompted(sentences, zeros))
    assert_close(ours.encode_text().detach(), expected)


def test_agreeing_gradients_stay_as_they_are():
    gradient = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    assert torch.equal(project(1.0, gradient, gradient + 0.1), gradient)
    assert torch.equal(project(1.0, gradient, torch.zeros(2, 2)), gradient)
    assert_close(project(1.0, gradient, -2 * gradient), torch.zeros(2, 2))
    assert project(1.0, gradient, gradient / 0).isnan().all()


def test_lambda_0_is_coop(images, class_names):
    ours = make_prograd(make_clip(), class_names, 4, LAMBDA=0.0)
    coop = make_tuner("CoOp", make_clip(), class_names).train()
    for model in (ours, coop):
        shake(model.learned)
        optimiser = torch.optim.SGD(model.learned.parameters(), **SGD)
        for _ in range(3):
            descend(model, images, LABEL, optimiser)
    assert torch.equal(ours.learned.ctx, coop.learned.ctx)


def test_more_words_than_vectors_are_refused(class_names):
    with pytest.raises(ValueError, match="has 4 tokens, more than the N_CTX 3 context vectors"):
        make_prograd(make_clip(), class_names, 3)
