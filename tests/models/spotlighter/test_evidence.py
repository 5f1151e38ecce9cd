"""The fit of the head: every picture is judged by a bank that has not seen it."""

from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F

from models import fit
from models.clip.prune import TokenPruner
from models.fit import Judged, choose, fit_offset, fit_weights
from models.spotlighter import CHOICES, KINDS, LEVELS, evidence
from models.spotlighter.evidence import Evidence, fill_and_fit
from models.spotlighter.model import SpotlightedCLIP
from tests import tuners
from tests.conftest import CLASS_NAMES, assert_close, make_clip
from tests.models.spotlighter.test_model import ALONE, NEW, of_classes, slow_logits

pytestmark = pytest.mark.usefixtures("float64")

BATCH = 7  # some batches have pictures of some classes only
PROTOTYPES = 6
CAUTIOUS = [evidence.RIDGE, *[evidence.CAUTION] * len(LEVELS)]


class Case(NamedTuple):
    """A model, its training pictures, and what it was built with."""

    model: SpotlightedCLIP
    images: torch.Tensor
    label: torch.Tensor
    options: dict[str, Any]

    def pictures(self, noise=0.0):
        """Features in batches; `noise` makes another view of each picture."""
        random = torch.Generator().manual_seed(7)
        images = self.images + noise * torch.randn(self.images.shape, generator=random)
        with torch.no_grad():
            tokens = self.model.base.encode_image(images, self.model.patch_path)
        rows = torch.arange(len(images)).split(BATCH)
        batches = [(type(tokens)(*[x if x is None else x[r] for x in tokens]), r) for r in rows]
        return lambda: ((part, self.label[r]) for part, r in batches)

    def fit(self):
        fill_and_fit(self.model, self.pictures(), [self.pictures(noise=0.3)])
        return self.model


def make_case(
    base="CoOp", shots=4, names=CLASS_NAMES, present=None, is_pruned=False, seed=0, **options
):
    """Noise with a pattern of the class; `present`: the classes that have pictures."""
    options = {"base_name": base, "prototypes": PROTOTYPES} | options
    model = build(names, is_pruned, options)
    tuners.shake(model.base.learned, size=0.02)
    random = torch.Generator().manual_seed(seed)
    present = torch.arange(len(names)) if present is None else torch.tensor(present)
    label = present.repeat(shots)[torch.randperm(shots * len(present), generator=random)]
    pattern = torch.randn(len(names), 3, 32, 32, generator=random)
    images = torch.randn(len(label), 3, 32, 32, generator=random) + 0.5 * pattern[label]
    return Case(model.eval(), images, label, options | {"is_pruned": is_pruned})


def build(names, is_pruned, options):
    model = tuners.make_spotlighted(clip=make_clip(), class_names=list(names), **options)
    if is_pruned:
        model.base.prune(TokenPruner(at=(1,), keep=(6,), width=64))
    return model


@pytest.fixture
def judgements(monkeypatch):
    """What each call of `judge` was asked and answered."""
    calls, original = [], Evidence.judge

    def judge(self, sides):
        calls.append((self, sides, original(self, sides)))
        return calls[-1][2]

    monkeypatch.setattr(Evidence, "judge", judge)
    return calls


def all_judged(judgements, first=0):
    """(evidence, bank, kind, parts) of all calls; the kind is that of classes without pictures."""
    found = []
    for number, (own, sides, judged) in enumerate(judgements, first):
        if number:  # the offsets, kind by kind
            kinds = [kind for kind in CHOICES for _ in range(len(sides) // len(CHOICES))]
        else:
            held_out = [held for held, side in sides if not side.bank.seen.any()]
            half = len(held_out) // 2
            kinds = ["inherit"] * (len(sides) - 2 * half)
            kinds += ["inherit"] * half + ["text"] * half
        for (held, _), kind, one in zip(sides, kinds, judged, strict=True):
            found.append((own, held, kind, one))
    return found


def judge_slowly(case, own, held, kind, picture):
    """The parts of one picture, by a model of the competing classes that has this bank."""
    names = [own.names[c] for c in held.classes]
    options = {k: v for k, v in case.options.items() if k != "is_pruned"} | {"new": kind}
    other = build(names, case.options["is_pruned"], options).eval()
    other.base.learned.load_state_dict(case.model.base.learned.state_dict())
    other.head.load_state_dict(case.model.head.state_dict())
    other.head.memory = held.memory
    _, parts = slow_logits(other, case.images[picture : picture + 1])
    return parts[:, 0].T


@pytest.mark.parametrize(
    ("most", "options"),
    [
        (None, {}),
        (None, {"base": "CoCoOp"}),
        (None, {"is_pruned": True}),
        (None, {"base": "PromptKD", "present": [0, 1, 3, 5]}),
        (None, {"shots": 5, "tokens": "raw", "score": "similarity"}),
        (2, {}),
        (2, {"base": "CoCoOp"}),
    ],
)
def test_parts_are_those_of_a_slow_pass_over_single_pictures(
    judgements, monkeypatch, most, options
):
    if most:  # some classes and some of their shots are evidence
        monkeypatch.setattr(fit, "MOST_SHOTS", most)
        monkeypatch.setattr(fit, "MOST_CLASSES", 5)
        options = {"names": [*CLASS_NAMES, "hen", "bee", "ant"]} | options
    case = make_case(**options)
    case.fit()
    random = torch.Generator().manual_seed(0)
    found = all_judged(judgements)
    assert len(judgements) == 2  # passes over the pictures: for the weights, for the offsets
    for number in torch.randperm(len(found), generator=random)[:8].tolist():
        own, held, kind, judged = found[number]
        pictures = own.chosen.nonzero().squeeze(1)[held.judges]
        assert len(pictures) == len(judged.label)
        i = int(torch.randint(len(pictures), (), generator=random))
        assert_close(judged.parts[i], judge_slowly(case, own, held, kind, int(pictures[i])))
        name = own.names[held.classes[judged.label[i]]]
        assert name == case.model.head.class_names[case.label[pictures[i]]]


def test_a_bank_has_not_seen_what_it_judges(judgements, monkeypatch):
    """Other features of one picture reach no bank that judges it, and each other of its class.

    The direction, which knows no class, has seen all pictures.
    """
    case, changed, original = make_case(), 9, evidence.write
    case.fit()

    def write(*args):
        written = original(*args)
        for x in (written.cls, written.kept):
            x[changed] = x[changed].flip(-1)
        return written

    monkeypatch.setattr(evidence, "write", write)
    before = [held for _, held, _, _ in all_judged(judgements)]
    judgements.clear()
    whole = case.model.head.memory.global_prototypes.clone()
    case.fit()
    assert not torch.equal(whole, case.model.head.memory.global_prototypes)
    # A bank without some classes judges them twice: alone, and beside the others.
    judges = {id(held.memory) for held in before if held.judges[changed]}
    name, counts = CLASS_NAMES[case.label[changed]], {True: 0, False: 0}
    for one, (_, other, _, _) in zip(before, all_judged(judgements), strict=True):
        is_hidden = id(one.memory) in judges
        assert is_hidden or name in one.memory.class_names
        buffers = zip(one.memory.buffers(), other.memory.buffers(), strict=True)
        assert all(torch.equal(*pair) for pair in buffers) == is_hidden
        counts[is_hidden] += 1
    assert min(counts.values()) > 0


def test_every_picture_is_judged_once_with_every_class_and_in_each_round_as_new(judgements):
    case = make_case()
    case.fit()
    found = all_judged(judgements)
    number = torch.zeros(2, len(case.label), dtype=torch.long)
    for own, held, _, _ in found[: -len(CHOICES) * 2 * evidence.ROUNDS]:
        names = {own.names[c] for c in held.classes}
        is_new = names.isdisjoint(held.memory.class_names)
        assert is_new or names == set(held.memory.class_names)
        number[int(is_new), held.judges] += 1
    for own, held, _, _ in found[-len(CHOICES) * 2 * evidence.ROUNDS :]:  # new ones among all
        assert len(held.classes) == len(CLASS_NAMES) == 2 * len(held.memory.class_names)
        shown = torch.tensor([name not in held.memory.class_names for name in own.names])
        assert shown.any()
        of_class = torch.bincount(own.label[held.judges])
        assert (of_class == of_class[0]).all()  # as many of a new class as of a seen one
    assert (number[0] == 1).all()
    assert (number[1] == evidence.ROUNDS * len(KINDS)).all()


def by_group(judgements):
    """Parts of shots, and of new classes by kind."""
    shots, new = [], {kind: [] for kind in KINDS}
    for own, held, kind, judged in all_judged(judgements[:1]):
        names = {own.names[c] for c in held.classes}
        (new[kind] if names.isdisjoint(held.memory.class_names) else shots).append(judged)
    return shots, new


def columns(judged, chosen):
    return [Judged(one.parts[..., chosen], one.label) for one in judged]


def test_weights_are_fitted_to_these_parts(judgements):
    head = make_case().fit().head
    shots, new = by_group(judgements)
    found = torch.cat([head.base.view(1), head.level])
    assert_close(found, fit_weights(shots).weights)
    assert (found > 0).sum() > 2
    assert_close(head.candidates, fit_weights(columns(shots, [0, 1])).weights)
    for kind, weights, candidates in zip(KINDS, head.new_parts, head.new_candidates, strict=False):
        fitted = fit_weights(new[kind], CAUTIOUS).weights
        assert_close(weights, fitted if fitted[1:].any() else ALONE)
        assert_close(candidates, fit_weights(columns(new[kind], [0, 1]), CAUTIOUS[:2]).weights)


def test_offset_is_fitted_to_new_classes_beside_others(judgements):
    head = make_case().fit().head
    own = torch.cat([head.base.view(1), head.level])
    found, number = all_judged(judgements[1:], first=1), 2 * evidence.ROUNDS
    assert len(found) == len(CHOICES) * number
    for row, of_kind in enumerate(found[i : i + number] for i in range(0, len(found), number)):
        logits, is_new, label = [], [], []
        for evidence_of, held, kind, one in of_kind:
            assert kind == CHOICES[row]
            names = [evidence_of.names[c] for c in held.classes]
            unseen = [name not in held.memory.class_names for name in names]
            each = [head.new_parts[row] if new else own for new in unseen]
            logits.append(torch.einsum("bcp,cp->bc", one.parts, torch.stack(each)))
            is_new.append(torch.tensor(unseen).double().expand_as(logits[-1]))
            label.append(one.label)
        expected = fit_offset(torch.cat(logits), torch.cat(is_new), torch.cat(label))
        assert head.new_offset[row].item() == pytest.approx(expected, abs=1e-6)
    assert (head.new_offset != 0).all()


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_auto_is_the_kind_under_which_held_out_classes_are_likelier(judgements, seed):
    head = make_case(seed=seed).fit().head
    _, new = by_group(judgements)
    losses = []
    for kind in KINDS:
        weights = fit_weights(new[kind], CAUTIOUS).weights
        logits = [one.parts @ weights for one in new[kind]]
        each = [
            F.cross_entropy(x, one.label, reduction="sum")
            for x, one in zip(logits, new[kind], strict=True)
        ]
        losses.append(sum(each).item() / sum(len(one.label) for one in new[kind]))
    assert head.new_kind == losses.index(min(losses))


def test_either_kind_may_be_the_likelier_one(monkeypatch):
    """With the fits of both kinds exchanged, auto is the other."""
    head = make_case().fit().head
    first, original = int(head.new_kind), Evidence.side
    other = dict(zip(KINDS, reversed(KINDS), strict=True)) | {"off": "off"}
    monkeypatch.setattr(
        Evidence, "side", lambda self, held, new="inherit": original(self, held, other[new])
    )
    assert int(make_case().fit().head.new_kind) == 1 - first


def test_temperature_of_the_base_changes_no_probability():
    """Logits of another scale get another weight."""
    found = []
    for factor in (1.0, 8.0):
        case = make_case()
        case.model.base.logit_scale += torch.tensor(factor).log()
        model = case.fit()
        found.append([of(case.images).softmax(1) for of in (model, of_classes_of(case, model))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)
        assert torch.equal(one.argmax(1), other.argmax(1))


def of_classes_of(case, model):
    """The model for some seen and some new classes."""
    other = of_classes(model, ["dog", *NEW, "car"], prototypes=PROTOTYPES)
    other.base.logit_scale.copy_(model.base.logit_scale)
    return other


@pytest.mark.parametrize("levels", [LEVELS, ("global",)])
def test_one_shot_gives_weights_in_units_of_the_spread(levels):
    case = make_case(shots=1, levels=levels)
    model = case.fit()
    with torch.no_grad():
        parts = model.forward_all(case.images).head.parts  # (5, B, C)
    spread = []
    for part in parts:
        centred = torch.stack([row - row.sum() / len(row) for row in part])
        spread.append((centred**2).mean().sqrt())
    expected = torch.zeros(4)
    expected[0] = 0.5 / spread[1]
    if "both" in levels:
        expected[3] = 0.25 / spread[4]
    assert model.head.base == 1
    assert_close(model.head.level, expected)
    assert_close(model.head.candidates, torch.stack([torch.tensor(1.0), expected[0]]))


def test_one_shot_of_one_class_says_nothing():
    """No part differs between classes; beside others the class has the base's logits."""
    case = make_case(shots=1, names=["dog"])
    model = case.fit()
    assert torch.equal(torch.cat([model.head.base.view(1), model.head.level]), ALONE)
    mixed = of_classes(model, ["dog", *NEW], prototypes=PROTOTYPES)
    assert torch.equal(mixed(case.images), mixed.base(case.images))


def test_one_shot_of_some_classes_leaves_the_evidence_to_the_others(judgements):
    case = make_case()
    is_left = (case.label != 2) | (fit.turn_in_class(case.label) == 0)
    case = case._replace(images=case.images[is_left], label=case.label[is_left])
    head = case.fit().head
    shots, _ = by_group(judgements)
    assert sum(len(one.label) for one in shots) == len(case.label) - 1
    assert_close(torch.cat([head.base.view(1), head.level]), fit_weights(shots).weights)


def test_fewer_pictures_to_hold_out_than_classes_are_as_one_shot(judgements):
    """Two classes have two pictures, the other four have one."""
    case = make_case(shots=2)
    is_left = (case.label < 2) | (fit.turn_in_class(case.label) == 0)
    case = case._replace(images=case.images[is_left], label=case.label[is_left])
    head = case.fit().head
    shots, new = by_group(judgements)
    assert not shots
    assert new["text"]
    assert head.base == 1
    assert_close(head.level[[1, 2]], torch.zeros(2))
    assert (head.level[[0, 3]] > 0).all()
    _, sides, _ = judgements[-1]  # the offsets: every picture is judged
    assert all(held.judges.all() for held, _ in sides)


@pytest.mark.parametrize("number", [1, 3])
def test_what_cannot_be_fitted_is_not_what_was_fitted_before(number):
    """As where a run starts from what another one with more pictures has learned."""
    case, first = make_case(), make_case(seed=1).fit().head.state_dict()
    case.model.head.load_state_dict(first)
    few = case.label < number
    head = case._replace(images=case.images[few], label=case.label[few]).fit().head
    assert (first["new_offset"] != 0).all()
    assert not torch.equal(first["new_parts"], ALONE.expand(3, -1))
    assert torch.equal(head.new_parts, ALONE.expand(3, -1))
    assert torch.equal(head.new_candidates, ALONE[:2].expand(3, -1))
    assert ((head.new_offset == 0) == (number == 1)).all()
    assert head.new_kind == 0


@pytest.mark.parametrize("passes", [1, 2, 3])
@pytest.mark.parametrize("size", [-1, 1])
def test_pictures_that_come_or_go_are_refused(passes, size):
    """The first view is read three times; a picture is lost, or found, after some of them."""
    case, calls = make_case(), []
    whole = list(case.pictures()())

    def pictures():
        calls.append(1)
        tokens, label = whole[0]
        rows = torch.ones(len(label), dtype=torch.bool)
        rows[0] = (len(calls) > passes) == (size > 0)
        yield tokens.rows(rows), label[rows]
        yield from whole[1:]

    with pytest.raises(ValueError, match=f"training pictures .* then {'more' if size > 0 else 23}"):
        fill_and_fit(case.model, pictures, [case.pictures(noise=0.3)])


def chance(classes, number, random):
    """Parts of imagined pictures, of which all know something, the base most."""
    label = torch.arange(classes).repeat(number)
    parts = torch.randn(len(label), classes, 5, generator=random)
    parts *= torch.tensor([1.5, *[0.1] * len(LEVELS)])
    parts[torch.arange(len(label)), label] += torch.tensor([4.0, *[0.1] * len(LEVELS)])
    return Judged(parts, label)


@pytest.mark.parametrize("seed", range(6))
def test_few_pictures_that_the_base_tells_apart_do_not_make_it_sure(seed):
    """Two classes of two pictures in each half, all of them right, some by little.

    A weight that only these pictures hold would have no end.
    """
    case, random = make_case(), torch.Generator().manual_seed(seed)
    own = Evidence(case.model, case.pictures(), *evidence.read(case.model, case.pictures(), []))
    halves, test = [chance(2, 2, random) for _ in range(8)], chance(4, 200, random)
    for parts, label in halves:
        right, wrong = label.unsqueeze(1), 1 - label.unsqueeze(1)
        base = parts[..., 0].clone()
        best = torch.maximum(base.gather(1, right), base.gather(1, wrong) + 0.1)
        parts[..., 0] = base.scatter(1, right, best)
    own.fit_new_parts("text", halves)
    found = case.model.head.new_parts[KINDS.index("text")]
    assert F.cross_entropy(test.parts @ found, test.label) < F.cross_entropy(
        test.parts[..., 0], test.label
    )


@pytest.mark.parametrize("number", range(2, evidence.LEAST_CLASSES))
def test_with_few_classes_new_ones_are_left_to_the_base(number):
    """Beside others with the offset that makes them as likely as they are."""
    case = make_case(names=CLASS_NAMES[:number], shots=8)
    model = case.fit()
    assert not torch.equal(model(case.images), model.base(case.images))
    other = of_classes(model, NEW, prototypes=PROTOTYPES)
    assert torch.equal(other(case.images), other.base(case.images))
    mixed = of_classes(model, ["dog", *NEW], prototypes=PROTOTYPES)
    offset = model.head.new_offset[model.head.new_kind]
    assert offset != 0
    assert_close(mixed(case.images)[:, 1:], mixed.base(case.images)[:, 1:] + offset)


def test_new_classes_beside_two_are_no_less_likely_than_they_are():
    """Of two classes one is held out at a time."""
    case = make_case(shots=16)
    train = (case.label < 2) & (fit.turn_in_class(case.label) < 8)
    small = make_case(names=CLASS_NAMES[:2])
    small = small._replace(images=case.images[train], label=case.label[train])
    small.fit()
    model, test = of_classes(small.model, CLASS_NAMES, prototypes=PROTOTYPES), ~train
    share = model(case.images[test]).softmax(1)[:, 2:].sum(1)
    is_new = case.label[test] >= 2
    assert share[is_new].mean() > 0.5
    model.head.new_offset.zero_()
    model.clear_cache()
    assert model(case.images[test]).softmax(1)[is_new, 2:].sum(1).mean() < 0.4


def test_levels_that_are_not_named_get_no_weight(judgements):
    head = make_case(levels=("global",)).fit().head
    shots, new = by_group(judgements)
    assert_close(torch.cat([head.base.view(1), head.level[:1]]), head.candidates)
    assert_close(head.candidates, fit_weights(columns(shots, [0, 1])).weights)
    assert (head.level[1:] == 0).all()
    assert (head.new_parts[:, 2:] == 0).all()
    for weights, kind in zip(head.new_parts, KINDS, strict=False):
        fitted = fit_weights(columns(new[kind], [0, 1])).weights
        assert_close(weights[:2], fitted if fitted[1] else ALONE[:2])


def test_the_bank_is_filled_from_all_pictures_and_views(monkeypatch):
    monkeypatch.setattr(fit, "MOST_SHOTS", 2)
    monkeypatch.setattr(fit, "MOST_CLASSES", 4)
    case = make_case(shots=3)
    memory = case.fit().head.memory
    assert memory.filled
    assert memory.global_mass.tolist() == [6.0] * len(CLASS_NAMES)
    cls = torch.cat([x.cls for view in (0.0, 0.3) for x, _ in case.pictures(view)()])
    label = case.label.repeat(2)
    for c in range(len(CLASS_NAMES)):
        assert_close(memory.global_prototypes[c], cls[label == c].mean(0))


@pytest.mark.parametrize("base", ["CoOp", "PromptKD"])
def test_classes_without_pictures_are_new(judgements, base):
    """PromptKD's list has names of classes that it never trains on."""
    present = [0, 1, 3, 5]
    case = make_case(base=base, present=present)
    model = case.fit()
    assert judgements[0][0].names == [CLASS_NAMES[c] for c in present]
    side = model.text_side(next(case.pictures()())[0].cls)
    assert side.bank.seen.nonzero().squeeze(1).tolist() == present
    row, offset = int(model.head.new_kind), side.weights.offset
    for c in (2, 4):
        assert_close(side.weights.parts[:, c], model.head.new_parts[row])
        assert offset[c] == model.head.new_offset[row] != 0
    assert (offset[present] == 0).all()
    expected, _ = slow_logits(model, case.images[:2])
    assert_close(model(case.images[:2]), expected)


def test_evidence_is_of_some_shots_of_some_classes(monkeypatch):
    monkeypatch.setattr(fit, "MOST_SHOTS", 2)
    monkeypatch.setattr(fit, "MOST_CLASSES", 3)
    found, classes = choose(torch.tensor([9, 0, 2, 2, 2, 5, 5, 7]))
    assert classes.tolist() == [0, 5, 9]  # every second of 0, 2, 5, 7, 9
    assert found.tolist() == [2, 0, -1, -1, -1, 1, 1, -1]
    found, classes = choose(torch.tensor([1, 1, 1, 0]))
    assert classes.tolist() == [0, 1]
    assert found.tolist() == [1, 1, -1, 0]


def test_with_one_patch_left_there_is_nothing_to_choose():
    """A pruned tower may leave one; no direction tells it from others."""
    case = make_case(topk=1)
    case.model.base.prune(TokenPruner(at=(1,), keep=(1,), width=64))
    model = case.fit()
    assert (model.head.memory.direction == 0).all()
    assert F.cross_entropy(model(case.images), case.label) < 1.5


def test_classes_that_share_a_name_have_their_own_prototypes():
    """CLIP cannot tell them apart, their pictures can."""
    case = make_case(names=["dog", "Dog", *CLASS_NAMES[2:]], shots=8)
    model = case.fit()
    cls = next(case.pictures()())[0].cls
    assert torch.equal(*model.text_side(cls).text[:2])
    memory = model.head.memory
    for c, row in enumerate(model.text_side(cls).bank.global_prototypes[:2]):
        assert_close(row, memory.cls_space(memory.global_prototypes[c]))
    among = case.label < 2
    assert (model(case.images).argmax(1) == case.label)[among].double().mean() > 0.7


def test_an_evaluation_before_the_fit_is_not_kept():
    case = make_case()
    before = case.model(case.images)
    assert not torch.equal(case.fit()(case.images), before)


def test_fitting_again_finds_the_same():
    case = make_case()
    first = {k: v.clone() for k, v in case.fit().head.state_dict().items() if "extra" not in k}
    again = case.fit().head.state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert all(not p.requires_grad and p.grad is None for p in case.model.head.parameters())
