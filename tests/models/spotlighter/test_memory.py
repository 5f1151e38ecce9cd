"""Method, section 2: the bank against loops over pictures, patches and slots."""

import pytest
import torch

from models.clip.blocks import unit
from models.spotlighter.memory import PrototypeMemory, Written, cluster
from models.spotlighter.whiten import Whitening
from tests.conftest import assert_close

pytestmark = pytest.mark.usefixtures("float64")

C, M, K, D = 3, 4, 3, 8
NAMES = ["Oak_Tree", "dog", "cat"]
DIRECTION = torch.linspace(-1, 1, D)


def random_unit(*shape, seed=0):
    return unit(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def random_weight(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


@pytest.fixture
def anchors():
    return random_unit(C, D, seed=9)


@pytest.fixture
def memory(anchors):
    return PrototypeMemory(NAMES, anchors, num_prototypes=M)


@pytest.fixture
def filled(memory):
    memory.fill(pictures(), DIRECTION)
    return memory


def pictures(size=7, seed=0):
    """Of two of the three classes."""
    return Written(
        random_unit(size, D, seed=seed),
        random_unit(size, K, D, seed=seed + 1),
        random_weight(size, K, seed=seed + 2),
        torch.tensor([0, 1, 1, 0, 1, 1, 0])[:size],
    )


def joined(*parts):
    return Written(*map(torch.cat, zip(*parts, strict=True)))


def slow_space(space, x):
    return torch.stack([unit(space.matrix.T @ (row - space.mean)) for row in x])


def slow_slots(memory, written, c):
    """(mass, mean) of each cluster of a class's kept patches, the heaviest first."""
    own, share = [], []
    for i in range(len(written.label)):
        if written.label[i] == c:
            own += list(written.kept[i])
            share += list(written.weight[i] / written.weight[i].max())
    of = cluster(slow_space(memory.patch_space, own), M)
    found = []
    for m in range(M):
        pairs = [(w, x) for w, x, n in zip(share, own, of, strict=True) if n == m]
        if pairs:
            mass = sum(w for w, _ in pairs)
            found.append((mass, sum(w * x for w, x in pairs) / mass))
    return sorted(found, key=lambda pair: -pair[0])


def test_starts_as_the_text_anchors_without_evidence(memory, anchors):
    assert torch.equal(memory.global_prototypes, anchors)
    assert all(torch.equal(memory.prototypes[:, m], anchors) for m in range(M))
    assert memory.mass.sum() == memory.global_mass.sum() == memory.direction.abs().sum() == 0
    assert not memory.filled


@pytest.mark.parametrize("views", [1, 3])
def test_a_filled_bank_equals_the_slow_one(memory, views):
    written = joined(*[pictures(seed=10 * view) for view in range(views)])
    memory.fill(written, DIRECTION)
    assert memory.filled
    assert torch.equal(memory.direction, DIRECTION)
    assert_close(memory.cls_space.mean, sum(written.cls) / len(written.cls))
    assert_close(memory.patch_space.mean, written.kept.sum((0, 1)) / (K * len(written.cls)))
    for c in (0, 1):
        own = [x for x, label in zip(written.cls, written.label, strict=True) if label == c]
        assert_close(memory.global_prototypes[c], sum(own) / len(own))
        assert memory.global_mass[c] == len(own)
        slots = slow_slots(memory, written, c)
        assert len(slots) > 1
        for m, (mass, mean) in enumerate(slots):
            assert_close(memory.mass[c, m], mass)
            assert_close(memory.prototypes[c, m], mean)


def test_each_space_is_fitted_to_its_own_features_and_their_classes(filled):
    written = pictures()
    of_cls, of_patches = Whitening(D), Whitening(D)
    of_cls.fit(written.cls, written.label)
    patches = [x for kept in written.kept for x in kept]
    of_patches.fit(torch.stack(patches), torch.tensor([c for c in written.label for _ in range(K)]))
    assert_close(filled.cls_space.matrix, of_cls.matrix)
    assert_close(filled.patch_space.matrix, of_patches.matrix)
    assert not torch.equal(of_patches.matrix, torch.eye(D))


def test_most_evidence_comes_first(filled):
    assert (filled.mass[:, :-1] >= filled.mass[:, 1:]).all()


def test_a_class_without_pictures_keeps_its_anchor(filled, anchors):
    assert torch.equal(filled.global_prototypes[2], anchors[2])
    assert torch.equal(filled.prototypes[2], anchors[2].expand(M, -1))
    assert filled.mass[2].sum() == filled.global_mass[2] == 0


def test_slots_without_patches_keep_their_anchor(memory, anchors):
    memory.fill(pictures(1), DIRECTION)  # K patches for K + 1 slots
    assert (memory.mass[0] > 0).tolist() == [True] * K + [False] * (M - K)
    distance = torch.cdist(memory.prototypes[0, :K], pictures(1).kept[0]).min(1).values
    assert distance.max() < 1e-6
    assert torch.equal(memory.prototypes[0, K], anchors[0])


def test_filling_again_forgets_what_was_there(memory):
    memory.fill(pictures(seed=50), DIRECTION.flip(0))
    memory.fill(pictures(1, seed=20), DIRECTION)
    fresh = PrototypeMemory(NAMES, memory.anchors, num_prototypes=M)
    fresh.fill(pictures(1, seed=20), DIRECTION)
    for (name, one), other in zip(fresh.named_buffers(), memory.buffers(), strict=True):
        assert torch.equal(one, other), name


def test_some_pictures_are_chosen_with_all_that_is_theirs():
    written = pictures()
    chosen = written.label == 1
    for one, every in zip(written.of(chosen), written, strict=True):
        assert torch.equal(one, torch.stack([x for x, c in zip(every, chosen, strict=True) if c]))


def slow_inherit(memory, anchor, temperature):
    """From the classes with pictures alone."""
    seen = [c for c in range(C) if memory.global_mass[c] > 0]
    similarity = [(anchor @ memory.anchors[c]).item() / temperature for c in seen]
    weight = dict(zip(seen, torch.tensor(similarity).softmax(0), strict=True))
    offset = sum(w * (memory.global_prototypes[c] - memory.anchors[c]) for c, w in weight.items())
    p = [
        anchor + sum(w * (memory.prototypes[c, m] - memory.anchors[c]) for c, w in weight.items())
        for m in range(M)
    ]
    mass = sum(w * memory.mass[c] for c, w in weight.items())
    return anchor + offset, torch.stack(p), mass


def test_unseen_classes_inherit_offsets_and_seen_ones_keep_their_own(filled):
    """A class of the bank that had no pictures is as new as one that is not in it."""
    memory = filled
    names = ["cat", "DOG", "oak tree", "fox"]
    anchors = random_unit(4, D, seed=5)
    bank = memory.read(names, anchors, new="inherit", temperature=0.3)
    for i, own in ((1, 1), (2, 0)):
        assert torch.equal(bank.global_prototypes[i], memory.global_prototypes[own])
        assert torch.equal(bank.prototypes[i], memory.prototypes[own])
        assert torch.equal(bank.mass[i], memory.mass[own])
    for i in (0, 3):
        g, p, mass = slow_inherit(memory, anchors[i], 0.3)
        assert_close(bank.global_prototypes[i], g)
        assert_close(bank.prototypes[i], p)
        assert_close(bank.mass[i], mass)
    assert bank.seen.tolist() == [False, True, True, False]


def test_an_empty_bank_reads_as_text_for_any_class(memory):
    anchors = random_unit(2, D, seed=5)
    for new in ("inherit", "text"):
        bank = memory.read(["a", "b"], anchors, new=new)
        assert_close(bank.global_prototypes, anchors)
        assert_close(bank.prototypes, anchors.unsqueeze(1).expand(-1, M, -1))
        assert bank.mass.sum() == 0


def test_text_for_unseen_classes(filled):
    anchors = random_unit(2, D, seed=5)
    text = filled.read(["dog", "fox"], anchors, new="text")
    assert torch.equal(text.global_prototypes[1], anchors[1])
    assert torch.equal(text.prototypes[1], anchors[1].expand(M, -1))
    assert text.mass[1].sum() == 0
    assert torch.equal(text.global_prototypes[0], filled.global_prototypes[1])
    assert text.seen.tolist() == [True, False]


def test_reading_never_writes(filled):
    before = {k: v.clone() for k, v in filled.state_dict().items() if k != "_extra_state"}
    filled.read(NAMES, filled.anchors)
    filled.read(["fox"], random_unit(1, D, seed=5))
    after = filled.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("part", ["anchors", "mass", "_extra_state"])
def test_a_bank_of_as_many_classes_as_names_alone_is_loaded(memory, part):
    state = memory.state_dict()
    names = {"class_names": [*NAMES, "fox"]}
    state |= {part: names if part == "_extra_state" else state[part][:-1]}
    with pytest.raises(ValueError, match=r"rows of \[.*\] classes have the names of"):
        memory.load_state_dict(state)


def test_a_bank_of_other_classes_loads_with_its_names(filled):
    memory = filled
    other = PrototypeMemory(["x", "y"], random_unit(2, D), num_prototypes=M)
    other.load_state_dict(memory.state_dict())
    assert other.class_names == NAMES
    assert torch.equal(other.prototypes, memory.prototypes)
    assert torch.equal(other.anchors, memory.anchors)
    assert other.filled
    anchors = random_unit(4, D, seed=5)
    names = ["dog", "fox", "cat", "oak_tree"]
    for one, same in zip(other.read(names, anchors), memory.read(names, anchors), strict=True):
        assert torch.equal(one, same)


def test_a_bank_of_another_width_or_slot_number_is_refused(memory):
    other = PrototypeMemory(NAMES, random_unit(C, D), num_prototypes=M + 1)
    with pytest.raises(RuntimeError, match="size mismatch for prototypes"):
        other.load_state_dict(memory.state_dict())
