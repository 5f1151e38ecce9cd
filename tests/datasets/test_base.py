"""The few-shot protocol: reading, drawing, caching, choosing classes, and every refusal."""

import json
import logging
import random

import pytest
from dassl.utils import set_random_seed

from datasets.base import FewShotDataset
from datasets.splits import Item, Splits, read_split, select_labels, subsample_classes
from tests.datasets.config import flat, make_cfg

CLASSES = ["ant", "bee", "cat", "dog", "eel"]


class Zoo(FewShotDataset):
    dataset_dir = "zoo"
    image_dir = "pictures"
    split_file = "split_zhou_Zoo.json"


def write_zoo(root, per_class=10):
    """Pictures in mixed order, so that sorting anywhere would be seen."""
    order = random.Random(0)
    split = {}
    for name in ("train", "val", "test"):
        entries = [
            [f"{class_name}/{name}_{i}.png", label, class_name]
            for label, class_name in enumerate(CLASSES)
            for i in range(per_class)
        ]
        order.shuffle(entries)
        split[name] = entries
    (root / "zoo" / "pictures").mkdir(parents=True)
    (root / "zoo" / "split_zhou_Zoo.json").write_text(json.dumps(split))
    return split


@pytest.fixture
def root(tmp_path):
    write_zoo(tmp_path)
    return tmp_path


def test_reads_the_whole_split_in_its_order(root):
    split = json.loads((root / "zoo" / "split_zhou_Zoo.json").read_text())
    zoo = Zoo(make_cfg(root))
    for items, entries in ((zoo.train_x, split["train"]), (zoo.val, split["val"])):
        expected = [
            (str(root / "zoo/pictures" / path), label, name) for path, label, name in entries
        ]
        assert flat(items) == expected
    assert len(zoo.test) == 50
    assert zoo.classnames == CLASSES
    assert zoo.lab2cname == dict(enumerate(CLASSES))
    assert zoo.num_classes == 5


def upstream_subset(split, shots, seed):
    """What upstream does with a read split, slowly: one generator, train first, class by class."""
    generator = random.Random(seed)
    subset = []
    for part, count in (("train", shots), ("val", min(shots, 4))):
        order = []
        for _, label, _ in split[part]:
            if label not in order:
                order.append(label)
        drawn = []
        for label in order:
            paths = [path for path, other, _ in split[part] if other == label]
            drawn += generator.sample(paths, count) if len(paths) >= count else paths
        subset.append(drawn)
    return subset


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 4, 6, 16])
def test_the_subset_is_upstreams(root, seed, shots):
    split = json.loads((root / "zoo" / "split_zhou_Zoo.json").read_text())
    split["train"] = [entry for entry in split["train"] if entry[:2] != ["bee/train_3.png", 1]]
    (root / "zoo" / "split_zhou_Zoo.json").write_text(json.dumps(split))
    set_random_seed(seed)
    zoo = Zoo(make_cfg(root, shots=shots, seed=seed))
    pictures = f"{root / 'zoo' / 'pictures'}/"
    found = [
        [item.impath.removeprefix(pictures) for item in part] for part in (zoo.train_x, zoo.val)
    ]
    assert found == upstream_subset(split, shots, seed)
    assert len(zoo.test) == 50


def test_cached_subset_equals_the_drawn_one(root):
    drawn = Zoo(make_cfg(root, shots=2))
    cache = root / "zoo" / "split_fewshot" / "shot_2-seed_1.json"
    first = cache.read_bytes()
    assert str(root) not in first.decode()
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]
    cached = Zoo(make_cfg(root, shots=2))
    assert flat(cached.train_x) == flat(drawn.train_x)
    assert flat(cached.val) == flat(drawn.val)
    assert flat(cached.test) == flat(drawn.test)
    assert cache.read_bytes() == first


def test_cache_is_really_read(root):
    Zoo(make_cfg(root, shots=2))
    cache = root / "zoo" / "split_fewshot" / "shot_2-seed_1.json"
    content = json.loads(cache.read_text())
    content["train"].reverse()
    cache.write_text(json.dumps(content))
    train = Zoo(make_cfg(root, shots=2)).train_x
    assert [item.classname for item in train] == [entry[2] for entry in content["train"]]


def test_random_state_is_the_same_with_and_without_cache(root):
    states = []
    for _ in range(2):
        random.seed(1)
        Zoo(make_cfg(root, shots=2))
        states.append(random.getstate())
    assert states[0] == states[1]


def test_subset_depends_on_the_seed_alone(root):
    random.seed(99)
    late = Zoo(make_cfg(root, shots=2, seed=3))
    (root / "zoo" / "split_fewshot" / "shot_2-seed_3.json").unlink()
    random.seed(3)
    assert flat(Zoo(make_cfg(root, shots=2, seed=3)).train_x) == flat(late.train_x)
    assert flat(Zoo(make_cfg(root, shots=2, seed=0)).train_x) != flat(late.train_x)


def test_unseeded_run_caches_nothing(root):
    Zoo(make_cfg(root, shots=2, seed=-1))
    assert not (root / "zoo" / "split_fewshot").exists()


def test_changed_split_is_drawn_anew(root):
    Zoo(make_cfg(root, shots=2))
    path = root / "zoo" / "split_zhou_Zoo.json"
    split = json.loads(path.read_text())
    split["train"] = [entry for entry in split["train"] if not entry[0].endswith("_1.png")]
    path.write_text(json.dumps(split))
    train = Zoo(make_cfg(root, shots=2)).train_x
    assert not any(item.impath.endswith("_1.png") for item in train)
    (root / "zoo" / "split_fewshot" / "shot_2-seed_1.json").unlink()
    assert flat(Zoo(make_cfg(root, shots=2)).train_x) == flat(train)


@pytest.mark.parametrize("content", ["", "[]", '{"drawn_from": 1}'])
def test_broken_cache_is_drawn_anew(root, content):
    drawn = Zoo(make_cfg(root, shots=2))
    cache = root / "zoo" / "split_fewshot" / "shot_2-seed_1.json"
    complete = cache.read_text()
    cache.write_text(content)
    assert flat(Zoo(make_cfg(root, shots=2)).train_x) == flat(drawn.train_x)
    assert cache.read_text() == complete


def test_unwritable_folder_costs_one_log_line(root, caplog):
    (root / "zoo" / "split_fewshot").write_text("a file where the folder should be")
    with caplog.at_level(logging.INFO, logger="datasets"):
        zoo = Zoo(make_cfg(root, shots=2))
    assert len(zoo.train_x) == 10
    lines = [record for record in caplog.records if record.name.startswith("datasets")]
    assert [line.levelname for line in lines] == ["INFO"]
    assert "Not kept for the next run" in lines[0].message


def test_few_shot_subset_moves_with_the_data(root, tmp_path_factory):
    drawn = Zoo(make_cfg(root, shots=2))
    moved = tmp_path_factory.mktemp("moved")
    (root / "zoo").rename(moved / "zoo")
    there = Zoo(make_cfg(moved, shots=2))
    assert [item.impath.replace(str(moved), str(root)) for item in there.train_x] == [
        item.impath for item in drawn.train_x
    ]


@pytest.mark.parametrize(
    ("subset", "expected"),
    [("all", CLASSES), ("base", ["ant", "bee", "cat"]), ("new", ["dog", "eel"])],
)
def test_class_subsets_are_labelled_from_zero(root, subset, expected):
    zoo = Zoo(make_cfg(root, shots=3, subset=subset))
    assert zoo.classnames == expected
    for items, per_class in ((zoo.train_x, 3), (zoo.val, 3), (zoo.test, 10)):
        assert sorted(item.classname for item in items) == sorted(expected * per_class)
        assert all(expected[item.label] == item.classname for item in items)


def test_base_takes_the_larger_half_of_sorted_labels():
    assert select_labels([7, 3, 5, 3], "base") == [3, 5]
    assert select_labels([7, 3, 5, 3], "new") == [7]
    assert select_labels([], "base") == []


def test_domain_survives_relabelling():
    items = [Item(impath="a", label=1, domain=2, classname="x"), Item(impath="b", label=0)]
    new = subsample_classes(Splits(items, [], items), "new")
    assert [(item.label, item.domain) for item in new.test] == [(0, 2)]


def test_unknown_class_subset_names_the_choices(root):
    with pytest.raises(
        ValueError, match=r"SUBSAMPLE_CLASSES must be one of all, base, new; got 'novel'"
    ):
        Zoo(make_cfg(root, subset="novel"))


def test_missing_dataset_folder_says_where_it_looked(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=rf"Zoo was looked for in {tmp_path}/zoo.*--root.*docs/datasets"
    ):
        Zoo(make_cfg(tmp_path))


def test_missing_picture_folder_is_named(root):
    (root / "zoo" / "pictures").rmdir()
    with pytest.raises(FileNotFoundError, match="zoo/pictures, which is not a folder"):
        Zoo(make_cfg(root))


def test_missing_split_file_is_named(root):
    (root / "zoo" / "split_zhou_Zoo.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"zoo/split_zhou_Zoo.json is missing.*docs/datasets"
    ):
        Zoo(make_cfg(root))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        (
            '{"train": [["a.png", 0, "ant"]], "val": [], "test": [], "class_names": "ant"}',
            "class_names that are no list of names",
        ),
        ('{"train": [], "val": []}', "must hold three lists: train, val, test"),
        ("[1]", "must hold three lists"),
        ('{"train": {}, "val": [], "test": []}', "must hold three lists"),
        ('{"train": [], "val": [], "test": []}', "lists no training pictures"),
        (
            '{"train": [["a.png", "0", "ant"]], "val": [], "test": []}',
            r"got \['a.png', '0', 'ant'\]",
        ),
        (
            '{"train": [["a.png", 0]], "val": [], "test": []}',
            r"expected \[path, label counted from 0",
        ),
        ('{"train": [["a.png", -1, "ant"]], "val": [], "test": []}', "malformed entry"),
    ],
)
def test_malformed_split_file_is_refused(tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_split(path, tmp_path)


@pytest.mark.parametrize(
    ("entries", "names", "said"),
    [
        ([["a.png", 0, "ant"], ["b.png", 0, "bee"]], [], "calls label 0 both 'ant' and 'bee'"),
        ([["a.png", 0, "ant"]], ["bee"], "calls label 0 both 'bee' and 'ant'"),
        ([["a.png", 0, "ant"], ["a.png", 1, "bee"]], [], "a.png twice; a picture belongs in one"),
        ([["a.png", 0, "ant"], ["b.png", 1, "bee"]], ["ant", "bee"], ""),
    ],
)
def test_a_split_file_that_contradicts_itself_is_warned_of(tmp_path, caplog, entries, names, said):
    path = tmp_path / "split.json"
    content = {"train": entries[:1], "val": [], "test": entries[1:], "class_names": names}
    path.write_text(json.dumps(content))
    caplog.set_level("WARNING", "datasets")
    read_split(path, tmp_path)
    assert said in caplog.text
    assert bool(said) == bool(caplog.records)


def test_prepare_runs_before_anything_is_looked_for(tmp_path):
    class SelfMade(Zoo):
        def prepare(self):
            if not self.folder.exists():
                write_zoo(self.folder.parent)

    assert len(SelfMade(make_cfg(tmp_path)).train_x) == 50


def test_empty_validation_split_becomes_none(root):
    path = root / "zoo" / "split_zhou_Zoo.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"val": []}))
    assert Zoo(make_cfg(root, shots=2)).val is None


def test_class_names_of_a_split_file_keep_empty_classes(root):
    path = root / "zoo" / "split_zhou_Zoo.json"
    split = json.loads(path.read_text())
    for part in ("train", "val", "test"):
        split[part] = [entry for entry in split[part] if entry[1] != 3]
    path.write_text(json.dumps(split))
    with pytest.raises(ValueError, match="No picture has the label 3, so its class has no name"):
        Zoo(make_cfg(root))
    path.write_text(json.dumps(split | {"class_names": CLASSES}))
    zoo = Zoo(make_cfg(root, shots=1))
    assert (zoo.classnames, zoo.num_classes, len(zoo.train_x)) == (CLASSES, 5, 4)
    assert Zoo(make_cfg(root, subset="new")).classnames == ["dog", "eel"]
    path.write_text(json.dumps(split | {"class_names": CLASSES[:4]}))
    with pytest.raises(ValueError, match="labels beyond its 4 class_names"):
        Zoo(make_cfg(root))


def test_a_class_of_the_test_alone_is_a_class(root):
    path = root / "zoo" / "split_zhou_Zoo.json"
    split = json.loads(path.read_text())
    split["train"] = [entry for entry in split["train"] if entry[1] != 4]
    path.write_text(json.dumps(split))
    assert Zoo(make_cfg(root)).classnames == CLASSES


def test_the_training_items_name_the_classes(root, caplog):
    path = root / "zoo" / "split_zhou_Zoo.json"
    split = json.loads(path.read_text())
    assert Zoo(make_cfg(root)).classnames == CLASSES
    assert "a label stands for one class" not in caplog.text
    split["test"] = [[picture, label, name.upper()] for picture, label, name in split["test"]]
    path.write_text(json.dumps(split))
    assert Zoo(make_cfg(root)).classnames == CLASSES
    assert "a label stands for one class, so check the split. 'eel' is used" in caplog.text
    split["class_names"] = [f"a {name}" for name in CLASSES]
    path.write_text(json.dumps(split))
    assert Zoo(make_cfg(root)).classnames == split["class_names"]
    assert "so check the split. 'a eel' is used" in caplog.text


def test_a_data_set_without_test_pictures_is_refused(root):
    path = root / "zoo" / "split_zhou_Zoo.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"test": []}))
    with pytest.raises(ValueError, match="Zoo has no test pictures"):
        Zoo(make_cfg(root))
