"""The head and the model around it: method sections 3 to 5 in one slow pass, and its invariants."""

import pytest
import torch
import torch.nn.functional as F

from models.clip.blocks import unit
from models.spotlighter import KINDS, NEW_CLASSES
from tests import tuners
from tests.conftest import assert_close, make_clip
from tests.models.spotlighter.test_matching import greedy_loop

pytestmark = pytest.mark.usefixtures("float64")

LABEL = torch.tensor([0, 1, 1, 5])
ALONE = torch.tensor([1, 0, 0, 0, 0], dtype=torch.float64)  # the base
NEW = ["fox", "hen"]


def build(clip_model, class_names, base="CoOp", **options):
    return tuners.make_spotlighted(base, clip_model, class_names, **options)


def trained(clip_model, class_names, images, base="CoOp", **options):
    """A filled model, with everything moved away from its start."""
    model = build(clip_model, class_names, base, **options)
    tuners.shake(model.base.learned)
    tuners.fill(model, images, LABEL)
    tuners.shake_head(model.head)
    return model


def of_classes(model, class_names, base="CoOp", **options):
    """The same model for other classes."""
    other = build(make_clip(), class_names, base, **options)
    other.learned.load_state_dict(model.learned.state_dict())
    return other.eval()


@pytest.fixture
def model(clip_model, class_names, images):
    return trained(clip_model, class_names, images)


def slow_weights(head, seen):
    """For each class: weights of base and global level, of all parts, and the offset."""
    new, found = head.options.new, []
    kind = {"inherit": 0, "text": 1, "off": 1}.get(new, int(head.new_kind))
    for is_seen in seen:
        if is_seen:
            found.append((head.candidates, [head.base, *head.level], 0))
        elif new == "off":
            found.append((ALONE[:2], ALONE, head.new_offset[2] if any(seen) else 0))
        else:
            offset = head.new_offset[kind] if any(seen) else 0
            found.append((head.new_candidates[kind], head.new_parts[kind], offset))
    return KINDS[kind], found


@torch.no_grad()
def slow_logits(model, images):  # noqa: C901
    """Sections 3 to 5, one image, class and rank at a time."""
    head, o, memory = model.head, model.head.options, model.head.memory
    tokens = model.base.encode_image(images, model.patch_path)
    of_base, scale = model.base.encode_text(tokens.cls), model.base.scale
    text = of_base if of_base.dim() == 2 else head.anchors
    C, K, M = len(text), o.topk, o.prototypes
    seen = [c in set(memory.class_names) for c in head.class_names]
    seen = [
        is_in and bool(memory.global_mass[memory.class_names.index(c)] > 0)
        for is_in, c in zip(seen, head.class_names, strict=True)
    ]
    kind, weights = slow_weights(head, seen)
    bank = memory.read(head.class_names, head.anchors, new=kind, temperature=o.tau_inherit)

    def white(space, x):
        return unit(space.matrix.T @ (x - space.mean))

    def turned(space, c):
        return unit(space.matrix.T @ (text[c] - memory.anchors.mean(0)))

    def z(a):
        return (a - a.mean()) / (a.var(correction=0).sqrt() + 1e-6)

    P = [[white(memory.patch_space, p) for p in slots] for slots in bank.prototypes]
    u = head.text_gain
    rows_cls = [
        unit(white(memory.cls_space, g) + u[0] * turned(memory.cls_space, c))
        for c, g in enumerate(bank.global_prototypes)
    ]
    out, parts = [], []
    for b, (f, V, attention) in enumerate(
        zip(tokens.cls, tokens.patches, tokens.cls_attention, strict=True)
    ):
        base = scale * ((of_base if of_base.dim() == 2 else of_base[b]) @ f)
        w_f = white(memory.cls_space, f)
        z0 = torch.stack([w_f @ row for row in rows_cls])
        first = [w[0] * base[c] + w[1] * z0[c] for c, (w, _, _) in enumerate(weights)]
        top = torch.stack(first).topk(min(o.candidates, C))
        pi = dict(zip(top.indices.tolist(), top.values.softmax(0), strict=True))
        W = [white(memory.patch_space, v) for v in V]
        likely = torch.stack([sum(p * max(w @ x for x in P[r]) for r, p in pi.items()) for w in W])
        known = sum(p for r, p in pi.items() if seen[r] or o.new != "off")
        semantic = z(torch.stack([v @ memory.direction for v in V])) + known * z(likely)
        sample = attention.log()
        if o.score == "similarity":
            sample = torch.stack([sum(p * text[r] @ v for r, p in pi.items()) for v in V])
        a = z(sample) + head.mix[0] * z(semantic)
        keep = sorted(range(len(V)), key=lambda n: -a[n].item())[:K]
        rest = [n for n in range(len(V)) if n not in keep]
        w = a[keep].softmax(0)
        X = torch.stack([W[n] for n in keep])
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
            evidence = (1 + bank.mass[c]).log()
            prior = head.mix[1] * (evidence - evidence.mean())
            return ((s / o.tau_proto + prior).softmax(0) * s).sum()

        def level(ranks):
            if not ranks:
                return torch.zeros(C)
            total = sum(k[j] for j in ranks)
            return torch.stack([sum(k[j] / total * fit(c, j) for j in ranks) for c in range(C)])

        found = [base, z0, level(range(o.level1)), level(range(o.level1, K)), level(range(K + 1))]
        parts.append(torch.stack(found))
        each = [
            offset + sum(v * part[c] for v, part in zip(own, found, strict=True))
            for c, (_, own, offset) in enumerate(weights)
        ]
        out.append(torch.stack(each))
    return torch.stack(out), torch.stack(parts, 1)


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"tokens": "raw", "topk": 4, "level1": 2, "prototypes": 6},
        {"topk": 3, "level1": 3, "prototypes": 4},  # level 2 is empty
        {"base": "CoCoOp", "prototypes": 6},
        {"score": "similarity", "prototypes": 6},
    ],
)
def test_logits_equal_the_slow_formulation(clip_model, class_names, images, kind):
    model = trained(clip_model, class_names, images, **kind).train()
    expected, parts = slow_logits(model, images)
    for mode in (True, False):
        out = model.train(mode).forward_all(images)
        assert_close(out.head.parts, parts)
        assert_close(out.logits, expected)


@pytest.mark.parametrize("names", [["dog", "fox", "car", "hen"], ["apple pie", "dog"], NEW])
@pytest.mark.parametrize("new", NEW_CLASSES)
def test_logits_of_other_classes_equal_the_slow_formulation(
    clip_model, class_names, images, names, new
):
    """Seen and new classes; "car" is in the list of the bank, but had no pictures."""
    model = trained(clip_model, class_names, images, prototypes=6)
    other = of_classes(model, names, prototypes=6, new=new)
    expected, parts = slow_logits(other, images)
    out = other.forward_all(images)
    assert_close(out.head.parts, parts)
    assert_close(out.logits, expected)


@pytest.mark.parametrize("base", tuners.BASES)
@pytest.mark.parametrize("tokens", ["value", "raw"])
def test_gate_false_is_the_base_bit_for_bit(clip_model, class_names, images, base, tokens):
    model = trained(clip_model, class_names, images, base, tokens=tokens, gate=False)
    for mode in (True, False):
        model.train(mode)
        assert torch.equal(model(images), model.base(images))


@pytest.mark.parametrize("base", tuners.BASES)
@pytest.mark.parametrize("is_filled", [False, True])
def test_a_head_that_is_not_fitted_is_the_base_bit_for_bit(
    clip_model, class_names, images, base, is_filled
):
    model = build(clip_model, class_names, base)
    if is_filled:
        tuners.fill(model, images, LABEL)
    for mode in (True, False):
        model.train(mode)
        assert torch.equal(model(images), model.base(images))


@pytest.mark.parametrize("names", [NEW, ["dog", *NEW]])
def test_new_classes_with_the_weight_of_the_base_get_its_logits_bit_for_bit(model, images, names):
    model.head.new_parts.copy_(ALONE)
    model.head.new_offset.zero_()
    other = of_classes(model, names)
    for mode in (True, False):
        other.train(mode)
        found, base = other(images), other.base(images)
        assert torch.equal(found[:, -2:], base[:, -2:])
        assert (found[:, :-2] != base[:, :-2]).all()


def test_new_classes_beside_seen_ones_get_the_offset_and_no_others(model, images):
    def change(names, **options):
        found = []
        for offset in (0.0, 2.5):
            model.head.new_offset.fill_(offset)
            found.append(of_classes(model, names, **options)(images))
        return (found[1] - found[0]).mean(0)

    assert_close(change(["dog", *NEW]), torch.tensor([0, 2.5, 2.5]))
    for names in (["dog", "big_cat"], NEW):
        assert (change(names) == 0).all()
    assert_close(change(["dog", *NEW], new="off"), torch.tensor([0, 2.5, 2.5]))


def test_what_new_classes_get_is_what_was_fitted_for_their_kind(model, images):
    """Auto is the kind that `new_kind` names."""
    for kind, name in enumerate(KINDS):
        model.head.new_kind.fill_(kind)
        auto, named = (of_classes(model, NEW, new=new)(images) for new in ("auto", name))
        assert torch.equal(auto, named)
    assert not torch.equal(*(of_classes(model, NEW, new=name)(images) for name in KINDS))


def test_the_head_has_21_scalars_and_trains_none(model, images):
    sizes = {name: p.numel() for name, p in model.head.named_parameters()}
    assert sizes == {"mix": 2, "image_gain": 5, "text_gain": 3, "pair": 6, "level": 4, "base": 1}
    assert sum(sizes.values()) == 21
    sum(model.train().step(images, LABEL).losses.values()).backward()
    assert all(p.grad is None and not p.requires_grad for p in model.head.parameters())
    assert model.base.learned.ctx.grad.abs().sum() > 0


@pytest.mark.parametrize("base", tuners.BASES)
def test_a_step_is_the_bases_and_the_distance_to_a_sentence(clip_model, class_names, images, base):
    model = trained(clip_model, class_names, images, base).train()
    before = {name: x.clone() for name, x in model.head.named_buffers()}
    step, alone = model.step(images, LABEL), model.base.step(images, LABEL)
    assert list(step.losses) == [*alone.losses, "distill"]
    for name, loss in alone.losses.items():
        assert_close(step.losses[name], loss)
    assert_close(step.logits, alone.logits)
    rows = alone.text.reshape(-1, *model.head.anchors.shape)
    drift = sum((text - model.head.anchors).abs().mean() for text in rows) / len(rows)
    assert_close(step.losses["distill"], 20 * drift)
    assert all(torch.equal(before[name], x) for name, x in model.head.named_buffers())


def test_distill_0_is_the_bases_step(model, images):
    model.train().distill = 0.0
    step, alone = model.step(images, LABEL), model.base.step(images, LABEL)
    assert step.losses.keys() == alone.losses.keys() == {"ce"}
    assert torch.equal(step.losses["ce"], alone.losses["ce"])


def test_a_base_with_a_memory_writes_to_it(clip_model, class_names, images):
    """TextRefiner is none of Spotlighter's bases, as it gives no text features to a step."""
    model = build(clip_model, class_names, "TextRefiner").train()
    model.distill = 0.0
    slots = model.base.learned.memory.slots.clone()
    model.update_memory(model.step(images, LABEL))
    assert not torch.equal(slots, model.base.learned.memory.slots)


def test_evaluated_rows_of_a_longer_list_are_a_list_of_their_own(class_names, images):
    """PromptKD trains on the names of all classes and evaluates some."""
    model = trained(make_clip(), class_names, images, "PromptKD").eval()
    rows = [5, 0, 3]
    other = of_classes(model, [class_names[row] for row in rows], "PromptKD")
    model.base.rows = torch.tensor(rows)
    model.clear_cache()
    model.base.clear_cache()
    assert_close(model(images), other(images))


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
    model = trained(clip_model, class_names, images, base)
    others = images.flip(0) * 0.5
    model.train()
    expected = [model(batch) for batch in (images, others)]
    model.eval()
    for batch, logits in zip((images, others), expected, strict=True):
        assert_close(model(batch), logits)


def test_loaded_weights_are_not_hidden_by_what_is_kept(model, images):
    model.eval()
    before = model(images)
    model.learned.load_state_dict(model.learned.state_dict() | {"head.base": torch.tensor(3.0)})
    assert not torch.equal(model(images), before)


def test_kept_indices_point_at_the_kept_patches(model, images):
    """The released code gathers one patch before the one that it scored."""
    out = model.forward_all(images)
    selection = out.head.selection
    for b in range(len(images)):
        expected = out.tokens.patches[b, selection.indices[b]]
        assert torch.equal(selection.tokens[b], expected)
    score = out.head.sample_wise + model.head.mix[0] * out.head.semantic_wise
    assert torch.equal(selection.indices[:, 0], score.argmax(1))


def test_unseen_classes_that_are_switched_off_get_the_base_logits(model, images, class_names):
    model.head.new_offset[2] = 0
    other = of_classes(model, [*class_names[:2], "fox"], new="off")
    difference = (other(images) - other.base(images)).abs().amax(0)
    assert difference[2] == 0
    assert (difference[:2] > 0).all()


def test_permuted_classes_give_permuted_logits(model, images, class_names):
    order = [3, 1, 5, 0, 2, 4]
    other = of_classes(model, [class_names[i] for i in order])
    assert_close(other(images), model.eval()(images)[:, order])


def test_a_resnet_is_refused(resnet_clip, class_names):
    with pytest.raises(ValueError, match="a ResNet backbone has none; choose a ViT"):
        build(resnet_clip, class_names)


def test_keeping_more_patches_than_the_backbone_has_is_refused(clip_model, class_names):
    with pytest.raises(ValueError, match=r"TOPK must lie in 1\.\.16 for this backbone .* got 17"):
        build(clip_model, class_names, topk=17, prototypes=17)


def test_all_faults_of_the_options_are_named_at_once(clip_model, class_names):
    wrong = {"topk": 17, "new": "guess", "tau_attn": 0.0, "tokens": "adapter"}
    wrong |= {"levels": ("global", "3"), "score": "size", "candidates": 0}
    with pytest.raises(ValueError, match="TOKENS must be one of value, raw") as caught:
        build(clip_model, class_names, **wrong)
    for part in (
        "TRAINER.SPOTLIGHTER: ",
        "PROTOTYPES must not be below TOPK, got 16 < 17",
        "NEW must be one of auto, inherit, text, off, got 'guess'",
        "SCORE must be one of attention, similarity, got 'size'",
        "LEVELS must name some of global, 1, 2, both, got 3",
        "CANDIDATES must be at least 1, got 0",
        "TAU_ATTN must be above 0, got 0.0",
    ):
        assert part in str(caught.value)
