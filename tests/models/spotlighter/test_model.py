"""The head and the model around it: method sections 3 to 6 in one slow pass, and its invariants."""

import pytest
import torch
import torch.nn.functional as F

from models.classifier import Target
from models.clip.blocks import unit
from models.clip.prune import LinearDiscriminant, most_attended
from tests import tuners
from tests.conftest import assert_close
from tests.models.spotlighter.test_matching import greedy_loop

pytestmark = pytest.mark.usefixtures("float64")

LABEL = torch.tensor([0, 1, 1, 5])


def build(clip_model, class_names, base="CoOp", **options):
    return tuners.make_spotlighted(base, clip_model, class_names, **options)


def shake(model):
    """Move every scalar away from its start, so that each one shows."""
    tuners.shake(model.learned, size=0.2)


def fill(model, images):
    tokens, statistics = model.base.encode_image(images, model.patch_path), LinearDiscriminant()
    statistics.add(model.head.patches(tokens), most_attended(tokens.cls_attention))
    model.head.memory.set_direction(statistics)
    model.head.memory.calibrate(*model.forward_all(images).memory_inputs(), LABEL)


@pytest.fixture
def model(clip_model, class_names, images):
    model = build(clip_model, class_names)
    fill(model, images)
    shake(model)
    return model


def slow_logits(model, images):  # noqa: C901
    """Sections 3 to 5 for HEAD lite, one image, class and rank at a time."""
    head, o, memory = model.head, model.head.options, model.head.memory
    tokens = model.base.encode_image(images, model.patch_path)
    text, scale = model.base.encode_text(), model.base.scale
    C, K, M = len(text), o.topk, o.prototypes

    def white(space, x):
        return unit(space.matrix.T @ (x - space.mean))

    def turned(space, c):
        return unit(space.matrix.T @ (text[c] - memory.anchors.mean(0)))

    P = [[white(memory.patch_space, p) for p in slots] for slots in memory.prototypes]
    u = head.text_gain
    rows_cls = [
        unit(white(memory.cls_space, g) + u[0] * turned(memory.cls_space, c))
        for c, g in enumerate(memory.global_prototypes)
    ]
    out, levels = [], []
    for f, V, attention in zip(tokens.cls, tokens.patches, tokens.cls_attention, strict=True):
        base = scale * (text @ f)
        w_f = white(memory.cls_space, f)
        z0 = torch.stack([o.sharpness * (w_f @ row) for row in rows_cls])
        top = (base + head.gate * head.level[0] * z0).detach().topk(min(o.candidates, C))
        pi = dict(zip(top.indices.tolist(), top.values.softmax(0), strict=True))
        likely = torch.stack(
            [
                sum(
                    p * max(white(memory.patch_space, v) @ P[r][m] for m in range(M))
                    for r, p in pi.items()
                )
                for v in V
            ]
        )

        def z(a):
            return (a - a.mean()) / (a.var(correction=0).sqrt() + 1e-6)

        semantic = z(torch.stack([v @ memory.direction for v in V])) + z(likely)
        a = z(attention.log()) + head.mix[0] * z(semantic)
        keep = sorted(range(len(V)), key=lambda n: -a[n].item())[:K]
        rest = [n for n in range(len(V)) if n not in keep]
        w = a[keep].softmax(0)
        X = torch.stack([white(memory.patch_space, V[n]) for n in keep])
        fused = sum(p * V[n] for p, n in zip(a[rest].softmax(0), rest, strict=True))
        Q = torch.stack([unit(sum(p * P[r][m] for r, p in pi.items())) for m in range(M)])
        match = greedy_loop(X @ Q.T)
        rows = []
        for part in (range(o.level1), range(o.level1, K)):
            for j in part:
                score = torch.stack([Q[match[j]] @ X[i] for i in part]) / o.tau_attn
                mixed = sum(s * X[i] for s, i in zip(score.softmax(0), part, strict=True))
                rows.append(unit(X[j] + head.image_gain[j] * mixed))
        rows.append(white(memory.patch_space, fused))
        k = F.softplus(head.pair) * torch.cat([w, w.mean().view(1)])

        def fit(c, j):
            towards = turned(memory.patch_space, c)
            if j == K:
                return rows[K] @ unit(sum(P[c]) / M + u[2] * towards)
            gain = u[1] if j < o.level1 else u[2]
            s = torch.stack([rows[j] @ unit(P[c][m] + gain * towards) for m in range(M)])
            evidence = (1 + memory.mass[c]).log()
            prior = head.mix[1] * (evidence - evidence.mean())
            return ((s / o.tau_proto + prior).softmax(0) * s).sum()

        def level(ranks):
            total = sum(k[j] for j in ranks)
            return torch.stack(
                [o.sharpness * sum(k[j] / total * fit(c, j) for j in ranks) for c in range(C)]
            )

        zs = [z0, level(range(o.level1)), level(range(o.level1, K)), level(range(K + 1))]
        levels.append(torch.stack(zs))
        out.append(base + head.gate * sum(v * one for v, one in zip(head.level, zs, strict=True)))
    return torch.stack(out), torch.stack(levels)


@pytest.mark.parametrize("kind", [{}, {"tokens": "raw", "topk": 4, "level1": 2}])
def test_logits_equal_the_slow_formulation(clip_model, class_names, images, kind):
    model = build(clip_model, class_names, **kind).train()
    fill(model, images)
    shake(model)
    out = model.forward_all(images)
    expected, levels = slow_logits(model, images)
    for i, name in enumerate(("global", "1", "2", "both")):
        assert_close(out.head.level_logits[name], levels[:, i])
    assert_close(out.logits, expected)


def test_gradients_equal_those_of_the_slow_formulation(clip_model, class_names, images):
    model = build(clip_model, class_names).train()
    fill(model, images)
    shake(model)
    parameters = list(model.learned.parameters())
    found = torch.autograd.grad(F.cross_entropy(model(images), LABEL), parameters)
    slow, _ = slow_logits(model, images)
    expected = torch.autograd.grad(F.cross_entropy(slow, LABEL), parameters)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)


def test_loss_equals_its_parts_written_down(model, images):
    model.train()
    out = model.forward_all(images)
    anchors = model.head.anchors
    parts = model.losses(out, Target(LABEL))
    z = out.head.level_logits
    levels = sum(F.cross_entropy(z[n], LABEL) for n in ("1", "2", "both"))
    text = out.side.text
    drift = (text - anchors).abs().sum() / text.numel()
    assert_close(parts["ce"], F.cross_entropy(out.logits, LABEL))
    assert_close(parts["levels"], levels / 50)
    assert_close(parts["distill"], 20 * drift)


def test_zero_switches_a_loss_term_off(model, images):
    out = model.train().forward_all(images)
    model.balance = model.distill = 0.0
    parts = model.losses(out, Target(LABEL))
    assert list(parts) == ["ce"]


@pytest.mark.parametrize("base", tuners.BASES)
@pytest.mark.parametrize("head", ["lite", "full"])
@pytest.mark.parametrize("tokens", ["value", "raw", "adapter"])
def test_gate_zero_is_the_base_bit_for_bit(clip_model, class_names, images, base, head, tokens):
    model = build(clip_model, class_names, base, head=head, tokens=tokens)
    fill(model, images)
    shake(model)
    model.head.gate.data.zero_()
    for mode in (True, False):
        model.train(mode)
        assert torch.equal(model(images), model.base(images))


def test_lite_learns_21_scalars(clip_model, class_names):
    head = build(clip_model, class_names).head
    sizes = {name: p.numel() for name, p in head.named_parameters()}
    assert sizes == {"mix": 2, "image_gain": 5, "text_gain": 3, "pair": 6, "level": 4, "gate": 1}
    assert sum(sizes.values()) == 21


def test_every_scalar_is_trained(model, images):
    out = model.train().forward_all(images)
    F.cross_entropy(out.logits, LABEL).backward()
    for name, parameter in model.head.named_parameters():
        assert (parameter.grad != 0).all(), name


def test_a_fresh_full_head_equals_the_lite_one(clip_model, class_names, images):
    logits = []
    for head in ("lite", "full"):
        model = build(clip_model, class_names, head=head)
        fill(model, images)
        model.head.gate.data.fill_(0.7)
        logits.append(model(images))
    assert_close(*logits)


@pytest.mark.parametrize("options", [{"head": "full"}, {"tokens": "adapter"}])
def test_learned_layers_are_trained(clip_model, class_names, images, options):
    model = build(clip_model, class_names, **options)
    fill(model, images)
    shake(model)
    F.cross_entropy(model.train()(images), LABEL).backward()
    for name, parameter in model.head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_one_formula_in_training_and_at_test(model, images):
    assert_close(model.train()(images), model.eval()(images))


def test_evaluation_never_writes_the_bank(model, images):
    before = {k: v.clone() for k, v in model.head.memory.named_buffers()}
    model.eval()(images)
    assert all(torch.equal(before[k], v) for k, v in model.head.memory.named_buffers())


def test_text_side_is_built_once_per_evaluation(model, images):
    calls = []
    model.base.text.register_forward_hook(lambda *_: calls.append(1))
    model.eval()
    for _ in range(3):
        model(images)
    assert len(calls) == 1


@pytest.mark.parametrize("base", ["CoOp", "CoCoOp"])
def test_what_is_kept_of_a_batch_does_not_reach_the_next(clip_model, class_names, images, base):
    model = build(clip_model, class_names, base)
    fill(model, images)
    shake(model)
    others = images.flip(0) * 0.5
    model.train()
    expected = [model(batch) for batch in (images, others)]
    model.eval()
    for batch, logits in zip((images, others), expected, strict=True):
        assert_close(model(batch), logits)


def test_kept_indices_point_at_the_kept_patches(model, images):
    """The released code gathers one patch before the one that it scored."""
    out = model.forward_all(images)
    selection = out.head.selection
    for b in range(len(images)):
        expected = out.tokens.patches[b, selection.indices[b]]
        assert torch.equal(selection.tokens[b], expected)
    score = out.head.sample_wise + model.head.mix[0] * out.head.semantic_wise
    assert torch.equal(selection.indices[:, 0], score.argmax(1))


def test_unseen_classes_that_are_switched_off_get_the_base_logits(clip_model, images, class_names):
    seen, new = class_names, [*class_names[:2], "fox"]
    trained = build(clip_model, seen, new="off")
    fill(trained, images)
    shake(trained)
    other = build(clip_model, new, new="off")
    other.learned.load_state_dict(trained.learned.state_dict())
    other.eval()
    difference = (other(images) - other.base(images)).abs().amax(0)
    assert difference[2] == 0
    assert (difference[:2] > 0).all()


def test_permuted_classes_give_permuted_logits(model, clip_model, images, class_names):
    order = [3, 1, 5, 0, 2, 4]
    other = build(clip_model, [class_names[i] for i in order])
    other.learned.load_state_dict(model.learned.state_dict())
    assert_close(other.eval()(images), model.eval()(images)[:, order])


def test_a_resnet_is_refused(resnet_clip, class_names):
    with pytest.raises(ValueError, match="a ResNet backbone has none; choose a ViT"):
        build(resnet_clip, class_names)


def test_keeping_more_patches_than_the_backbone_has_is_refused(clip_model, class_names):
    with pytest.raises(ValueError, match=r"TOPK must lie in 1\.\.16 for this backbone .* got 17"):
        build(clip_model, class_names, topk=17, prototypes=17)


def test_all_faults_of_the_options_are_named_at_once(clip_model, class_names):
    wrong = {"topk": 6, "head": "big", "new": "guess", "tau_attn": 0.0, "momentum": 2.0}
    with pytest.raises(ValueError, match="HEAD must be one of lite, full, got 'big'") as caught:
        build(clip_model, class_names, **wrong)
    for part in (
        "PROTOTYPES must not be below TOPK, got 5 < 6",
        "NEW must be one of inherit, text",
        "TAU_ATTN must be above 0, got 0.0",
        "MOMENTUM must lie in 0..1, got 2.0",
    ):
        assert part in str(caught.value)
