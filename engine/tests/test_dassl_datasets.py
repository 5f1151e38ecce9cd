import random
from collections import defaultdict

import pytest
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, build_dataset
from dassl.data.datasets.base_dataset import Datum as DatumOfItsModule
from dassl.utils import set_random_seed


@pytest.fixture(autouse=True)
def pictures_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k in range(4):
        for i in range(10):
            (tmp_path / f"{k}-{i}.png").touch()


def items(*counts, start=0):
    """Pictures in an order that mixes the classes; class k has counts[k] of them."""
    made = [
        Datum(impath=f"{k}-{i}.png", label=k + start, classname=f"class {k + start}")
        for i in range(max(counts))
        for k, n in enumerate(counts)
        if i < n
    ]
    return made


def paths(dataset):
    return [item.impath for item in dataset]


def reference_subset(source, num_shots):
    """Upstream's procedure, written out slowly."""
    by_label = defaultdict(list)
    order = []
    for item in source:
        if item.label not in order:
            order.append(item.label)
        by_label[item.label].append(item)
    subset = []
    for label in order:
        members = by_label[label]
        subset += random.sample(members, num_shots) if len(members) >= num_shots else members
    return subset


def test_datum_lies_at_the_module_path_of_pickled_caches():
    assert DatumOfItsModule is Datum
    assert Datum.__module__ == "dassl.data.datasets.base_dataset"
    assert set(vars(Datum("0-0.png"))) == {"_impath", "_label", "_domain", "_classname"}


def test_datum_properties_are_read_only():
    datum = Datum(impath="0-0.png", label=3, domain=1, classname="cat")
    assert (datum.impath, datum.label, datum.domain, datum.classname) == ("0-0.png", 3, 1, "cat")
    with pytest.raises(AttributeError):
        datum.label = 4


@pytest.mark.parametrize("impath", ["gone.png", ""])
def test_a_datum_needs_its_file(impath):
    """Upstream fails an assertion; here the file is named."""
    with pytest.raises(FileNotFoundError, match=f"No picture at '{impath}'"):
        Datum(impath=impath)


def test_classes_come_from_the_training_pictures_in_label_order():
    dataset = DatasetBase(train_x=items(2, 1, 3)[::-1], test=items(1, 1, 1, 1))
    assert dataset.num_classes == 3
    assert dataset.classnames == ["class 0", "class 1", "class 2"]
    assert dataset.lab2cname == {0: "class 0", 1: "class 1", 2: "class 2"}
    assert len(dataset.test) == 4
    assert dataset.val is None


def test_number_of_classes_is_the_largest_label_plus_one():
    assert DatasetBase(train_x=items(1, 1, start=4)).num_classes == 6


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fewshot_subset_of_a_seed_is_that_of_the_literature(seed):
    train, val = items(9, 3, 7), items(5, 6, 2)
    dataset = DatasetBase(train_x=train)
    set_random_seed(seed)
    got = dataset.generate_fewshot_dataset(train, num_shots=5)
    got_val = dataset.generate_fewshot_dataset(val, num_shots=4)
    random.seed(seed)
    assert paths(got) == paths(reference_subset(train, 5))
    assert paths(got_val) == paths(reference_subset(val, 4))


def test_several_sources_are_sampled_in_turn():
    train, val = items(4, 4), items(3, 3)
    dataset = DatasetBase(train_x=train)
    random.seed(1)
    got = dataset.generate_fewshot_dataset(train, val, num_shots=2)
    random.seed(1)
    assert [paths(part) for part in got] == [
        paths(reference_subset(train, 2)),
        paths(reference_subset(val, 2)),
    ]


def test_no_shots_means_everything_and_no_draw():
    train = items(4, 4)
    dataset = DatasetBase(train_x=train)
    random.seed(1)
    before = random.getstate()
    assert dataset.generate_fewshot_dataset(train) is train
    assert dataset.generate_fewshot_dataset(train, train) == (train, train)
    assert random.getstate() == before


def test_repeat_fills_small_classes():
    train = items(4, 1)
    dataset = DatasetBase(train_x=train)
    got = dataset.generate_fewshot_dataset(train, num_shots=3, repeat=True)
    assert [item.label for item in got] == [0, 0, 0, 1, 1, 1]
    got = dataset.generate_fewshot_dataset(train, num_shots=3)
    assert [item.label for item in got] == [0, 0, 0, 1]


def test_grouping_by_label():
    source = [Datum("0-0.png", label=i % 2, domain=i // 2) for i in range(4)]
    dataset = DatasetBase(train_x=source)
    assert dataset.split_dataset_by_label(source) == {0: source[::2], 1: source[1::2]}


def test_build_dataset_takes_the_registered_class(cfg):
    assert "ToyColours" in DATASET_REGISTRY.registered_names()
    dataset = build_dataset(cfg)
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (18, 6, 9)
    cfg.DATASET.NUM_SHOTS = 2
    dataset = build_dataset(cfg)
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (6, 6, 9)
