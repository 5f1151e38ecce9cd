"""Method, section 2: the bank against loops over images, tokens and slots."""

import pytest
import torch

from models.clip.blocks import unit
from models.clip.prune import LinearDiscriminant
from models.spotlighter.memory import PrototypeMemory, cluster, match_names
from tests.conftest import assert_close
from tests.models.spotlighter.test_matching import greedy_loop

pytestmark = pytest.mark.usefixtures("float64")

C, M, K, D = 3, 4, 3, 8
NAMES = ["Oak_Tree", "dog", "cat"]


def random_unit(*shape, seed=0):
    return unit(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def random_weight(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


@pytest.fixture
def anchors():
    return random_unit(C, D, seed=9)


@pytest.fixture
def memory(anchors):
    return PrototypeMemory(NAMES, anchors, num_prototypes=M, momentum=0.8)


def batch(size=7, seed=0):
    label = torch.tensor([0, 1, 1, 0, 1, 1, 0][:size])
    return (
        random_unit(size, D, seed=seed),
        random_unit(size, K, D, seed=seed + 1),
        random_weight(size, K, seed=seed + 2),
        label,
    )


def slow_space(space, x):
    return torch.stack([unit(space.matrix.T @ (row - space.mean)) for row in x])


def slow_update(memory, cls, kept, weight, label):
    """Section 2, "Update", one class and one slot at a time."""
    g, gm = memory.global_prototypes.clone(), memory.global_mass.clone()
    p, pm = memory.prototypes.clone(), memory.mass.clone()

    def blend(old, mass, items):
        total = sum(w for w, _ in items)
        mean = sum(w * x for w, x in items) / total
        rate = max(1 - memory.momentum, float(total / (mass + total)))
        return (1 - rate) * old + rate * mean, mass + total

    for c in range(len(g)):
        images = [i for i in range(len(label)) if label[i] == c]
        if not images:
            continue
        g[c], gm[c] = blend(g[c], gm[c], [(torch.tensor(1.0), cls[i]) for i in images])
        slots = slow_space(memory.patch_space, memory.prototypes[c])
        items = {}
        for i in images:
            similarity = slow_space(memory.patch_space, kept[i]) @ slots.T
            w = weight[i] / weight[i].max()
            for j, m in enumerate(greedy_loop(similarity)):
                items.setdefault(m, []).append((w[j], kept[i, j]))
        for m, pairs in items.items():
            p[c, m], pm[c, m] = blend(p[c, m], pm[c, m], pairs)
    return g, gm, p, pm


def test_starts_as_the_text_anchors_without_evidence(memory, anchors):
    assert torch.equal(memory.global_prototypes, anchors)
    assert all(torch.equal(memory.prototypes[:, m], anchors) for m in range(M))
    assert memory.mass.sum() == memory.global_mass.sum() == memory.direction.abs().sum() == 0


def test_updates_equal_the_slow_ones(memory):
    for step in range(4):
        if step == 2:  # the whitened space matters once it is known
            memory.patch_space.fit(random_unit(40, D, seed=77), torch.arange(40) % 4)
        data = batch(seed=10 * step)
        expected = slow_update(memory, *data)
        memory.update(*data)
        found = (memory.global_prototypes, memory.global_mass, memory.prototypes, memory.mass)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)


def test_first_write_replaces_and_an_unseen_class_stays(memory, anchors):
    cls, kept, weight, label = batch(1)
    memory.update(cls, kept, weight, label)
    assert_close(memory.global_prototypes[0], cls[0])
    written = memory.mass[0] > 0
    assert written.sum() == K
    distance = torch.cdist(memory.prototypes[0][written], kept[0]).min(1).values
    assert distance.max() < 1e-3
    assert torch.equal(memory.global_prototypes[2], anchors[2])
    assert memory.mass[2].sum() == 0


def test_a_crowd_does_not_swamp(memory):
    for step in range(30):
        memory.update(*batch(seed=step))
    assert (memory.prototypes.norm(dim=-1) < 1 + 1e-6).all()
    before = memory.global_prototypes.clone()
    cls, kept, weight, _ = batch(6, seed=99)
    memory.update(cls, kept, weight, torch.zeros(6, dtype=torch.long))
    # 6 images of one class move its prototype by at most the rate of a weighted mean.
    expected = 0.8 * before[0] + 0.2 * cls.mean(0)
    assert_close(memory.global_prototypes[0], expected)


def test_momentum_one_keeps_the_mean_of_all_that_was_written(anchors):
    memory = PrototypeMemory(NAMES, anchors, num_prototypes=M, momentum=1.0)
    seen = [batch(seed=step) for step in range(5)]
    for data in seen:
        memory.update(*data)
    of_class = torch.cat([cls[label == 1] for cls, _, _, label in seen])
    assert_close(memory.global_prototypes[1], of_class.mean(0))


def test_calibration_writes_class_means_clusters_and_spaces(memory):
    cls, kept, weight, label = batch()
    memory.set_direction(scatter := scatter_of(kept))
    assert not memory.calibrated
    assert_close(memory.direction, scatter.direction())
    memory.calibrate(cls, kept, weight, label)
    patches, group = kept.flatten(0, 1), label.repeat_interleave(K)
    assert_close(memory.cls_space.mean, cls.mean(0))
    assert_close(memory.patch_space.mean, patches.mean(0))
    share = (weight / weight.amax(1, keepdim=True)).flatten()
    for c in (0, 1):
        assert_close(memory.global_prototypes[c], cls[label == c].mean(0))
        assert memory.global_mass[c] == (label == c).sum()
        own, w = patches[group == c], share[group == c]
        cluster_of = cluster(memory.patch_space(own), M)
        expected = []
        for m in range(M):
            of = cluster_of == m
            expected.append((w[of].sum().item(), (w[of, None] * own[of]).sum(0) / w[of].sum()))
        for m, (mass, mean) in enumerate(sorted(expected, key=lambda pair: -pair[0])):
            assert memory.mass[c, m].item() == pytest.approx(mass)
            assert_close(memory.prototypes[c, m], mean)
    assert torch.equal(memory.global_prototypes[2], memory.anchors[2])
    assert memory.calibrated


def scatter_of(kept):
    found = LinearDiscriminant()
    found.add(kept, torch.arange(kept.shape[1]).expand(len(kept), -1) == 0)
    return found


def test_sorting_moves_prototypes_with_their_mass(memory):
    memory.update(*batch())
    before = zip(memory.mass[1].tolist(), memory.prototypes[1].clone(), strict=True)
    pairs = {round(m, 5): p for m, p in before}
    memory.sort_by_mass()
    for m, p in zip(memory.mass[1], memory.prototypes[1], strict=True):
        if m > 0:
            assert_close(pairs[round(m.item(), 5)], p)
    assert (memory.mass[:, :-1] >= memory.mass[:, 1:]).all()


def slow_inherit(memory, anchor, temperature):
    similarity = [(anchor @ memory.anchors[c]).item() / temperature for c in range(C)]
    weight = torch.tensor(similarity).softmax(0)
    g = anchor + sum(
        w * (memory.global_prototypes[c] - memory.anchors[c]) for c, w in enumerate(weight)
    )
    p = [
        anchor
        + sum(w * (memory.prototypes[c, m] - memory.anchors[c]) for c, w in enumerate(weight))
        for m in range(M)
    ]
    mass = sum(w * memory.mass[c] for c, w in enumerate(weight))
    return g, torch.stack(p), mass


def test_unseen_classes_inherit_offsets_and_seen_ones_keep_their_own(memory):
    memory.calibrate(*batch())
    names = ["horse", "DOG", "oak tree", "fox"]
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
    assert bank.active.tolist() == [1, 1, 1, 1]


def test_an_empty_bank_reads_as_text_for_any_class(memory):
    anchors = random_unit(2, D, seed=5)
    for new in ("inherit", "text"):
        bank = memory.read(["a", "b"], anchors, new=new)
        assert_close(bank.global_prototypes, anchors)
        assert_close(bank.prototypes, anchors.unsqueeze(1).expand(-1, M, -1))
        assert bank.mass.sum() == 0


def test_text_and_off_for_unseen_classes(memory):
    memory.calibrate(*batch())
    anchors = random_unit(2, D, seed=5)
    text = memory.read(["dog", "fox"], anchors, new="text")
    assert torch.equal(text.global_prototypes[1], anchors[1])
    assert torch.equal(text.global_prototypes[0], memory.global_prototypes[1])
    assert text.active.tolist() == [1, 1]
    assert memory.read(["dog", "fox"], anchors, new="off").active.tolist() == [1, 0]


def test_reading_never_writes(memory):
    memory.calibrate(*batch())
    before = {k: v.clone() for k, v in memory.state_dict().items() if k != "_extra_state"}
    memory.read(NAMES, memory.anchors)
    memory.read(["fox"], random_unit(1, D, seed=5))
    after = memory.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_names_are_compared_in_folded_case_with_underscores_as_spaces():
    assert match_names(["OAK TREE", "fox", "Dog"], NAMES) == [0, -1, 1]


@pytest.mark.parametrize("part", ["anchors", "mass", "_extra_state"])
def test_a_bank_of_as_many_classes_as_names_alone_is_loaded(memory, part):
    state = memory.state_dict()
    names = {"class_names": [*NAMES, "fox"]}
    state |= {part: names if part == "_extra_state" else state[part][:-1]}
    with pytest.raises(ValueError, match=r"a bank of \[.*\] classes has the names of"):
        memory.load_state_dict(state)


def test_a_bank_of_other_classes_loads_with_its_names(memory):
    memory.calibrate(*batch())
    other = PrototypeMemory(["x", "y"], random_unit(2, D), num_prototypes=M)
    other.load_state_dict(memory.state_dict())
    assert other.class_names == NAMES
    assert torch.equal(other.prototypes, memory.prototypes)
    assert torch.equal(other.anchors, memory.anchors)


def test_a_bank_of_another_width_or_slot_number_is_refused(memory):
    other = PrototypeMemory(NAMES, random_unit(C, D), num_prototypes=M + 1)
    with pytest.raises(RuntimeError, match="size mismatch for prototypes"):
        other.load_state_dict(memory.state_dict())
