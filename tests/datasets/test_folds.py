"""DATASET.FOLD: one part of the training pictures is held out, and tested."""

import logging
from collections import Counter

import pytest

from datasets.splits import Item, Splits, deal, fold_of
from tests.datasets.config import make_cfg
from tests.datasets.test_base import Zoo, write_zoo


def items(*sizes):
    """Pictures of classes that take turns, as many as each has."""
    rows = sorted((j, label) for label, size in enumerate(sizes) for j in range(size))
    return [Item(f"{label}_{j}.png", label, classname=f"class {label}") for j, label in rows]


def paths(found):
    return [item.impath for item in found]


def test_the_jth_picture_of_a_class_goes_to_fold_j_mod_f():
    dealt = deal(Splits(items(5, 2, 1), [], items(1)), "1/3")
    assert paths(dealt.test) == ["0_0.png", "1_0.png", "0_3.png"]
    assert paths(dealt.train) == ["2_0.png", "0_1.png", "1_1.png", "0_2.png", "0_4.png"]


@pytest.mark.parametrize("folds", [2, 3, 4])
def test_each_picture_is_held_out_once_but_the_only_one_of_a_class(folds):
    splits = Splits(items(4, 7, 1, 5), [], [])
    held = Counter()
    for k in range(1, folds + 1):
        dealt = deal(splits, f"{k}/{folds}")
        assert sorted(paths([*dealt.train, *dealt.test])) == sorted(paths(splits.train))
        assert {item.label for item in dealt.train} == {0, 1, 2, 3}
        held.update(paths(dealt.test))
    assert held == Counter(path for path in paths(splits.train) if path != "2_0.png")


@pytest.mark.parametrize(
    ("sizes", "fold", "message"),
    [
        ((1, 1), "1/4", "fold 1/4 .* no class has two training pictures"),
        ((), "1/4", "no class has two training pictures"),
        ((3, 2), "4/4", "fold 4/4 .* no class has more than 3 training pictures"),
    ],
)
def test_an_empty_fold_is_refused(sizes, fold, message):
    with pytest.raises(ValueError, match=message):
        deal(Splits(items(*sizes), [], []), fold)


def test_what_is_a_fold():
    assert fold_of("3/4") == (3, 4)
    for text in ("", "0/4", "5/4", "1/1", "a/b", "1/4 ", "1/-4", "1/99999"):
        assert fold_of(text) is None, text


def test_a_data_set_tests_its_fold_and_stays_the_same_data(tmp_path, caplog):
    write_zoo(tmp_path)
    caplog.set_level(logging.INFO)
    whole = Zoo(make_cfg(tmp_path, shots=4, subset="base"))
    fold = Zoo(make_cfg(tmp_path, shots=4, subset="base", FOLD="2/4"))
    assert sorted(item.label for item in fold.test) == [0, 1, 2]
    assert Counter(item.label for item in fold.train_x) == {0: 3, 1: 3, 2: 3}
    assert sorted(paths([*fold.train_x, *fold.test])) == sorted(paths(whole.train_x))
    order = {label: [x.impath for x in whole.train_x if x.label == label] for label in range(3)}
    assert {item.impath for item in fold.test} == {order[label][1] for label in range(3)}
    assert paths(fold.val) == paths(whole.val)
    assert (fold.digest, fold.label) == (whole.digest, whole.label)
    assert fold.classnames == whole.classnames
    said = "Fold 2/4 (DATASET.FOLD): 3 training pictures are held out and tested, 9 stay"
    assert said in caplog.text


def test_one_shot_has_no_folds(tmp_path):
    write_zoo(tmp_path)
    with pytest.raises(ValueError, match="no class has two training pictures"):
        Zoo(make_cfg(tmp_path, shots=1, FOLD="1/2"))
