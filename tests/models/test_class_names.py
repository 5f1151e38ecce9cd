import pytest
import torch
from torch import nn

from models.class_names import OfClasses, match_names, rows_taken_over
from runs.checkpoint import load_into

NAMES = ["oak_tree", "dog", "cat"]


class Rows(OfClasses):
    by_class = ("weight", "count")

    def __init__(self, class_names):
        super().__init__()
        self.class_names = list(class_names)
        self.weight = nn.Parameter(torch.randn(len(class_names), 2))
        self.register_buffer("count", torch.ones(len(class_names), dtype=torch.long))
        self.scale = nn.Parameter(torch.ones(()))


def test_names_are_compared_in_folded_case_with_underscores_as_spaces():
    assert match_names(["OAK TREE", "fox", "Dog"], NAMES) == [0, -1, 1]


def test_classes_that_share_a_name_keep_their_order():
    seen = ["crane", "dog", "Crane", "fox"]
    assert match_names(seen, seen) == [0, 1, 2, 3]
    assert match_names(["fox", "CRANE", "crane", "owl", "owl"], seen) == [3, 0, 2, -1, -1]
    assert match_names(["crane"] * 3, seen) == [0, 2, 2]


def test_a_checkpoint_of_other_classes_is_taken_over(tmp_path):
    saved, own = Rows(NAMES), nn.ModuleDict({"part": Rows(["fox"])})
    weight = own["part"].weight
    state = {f"part.{key}": value for key, value in saved.state_dict().items()}
    load_into(own, {"state_dict": state}, tmp_path)
    assert own["part"].class_names == NAMES
    assert own["part"].weight is weight  # the optimiser knows it
    assert torch.equal(weight, saved.weight)
    assert torch.equal(own["part"].count, saved.count)
    assert rows_taken_over(own) == {"part.weight", "part.scale"}


@pytest.mark.parametrize(("key", "value"), [
    ("weight", torch.zeros(3, 5)), ("count", torch.zeros(2, dtype=torch.long)),
    ("scale", torch.ones(2)),
])
def test_what_does_not_fit_is_refused_and_nothing_changed(tmp_path, key, value):
    own = Rows(["fox", "owl"])
    before = own.weight.detach().clone()
    with pytest.raises(ValueError, match="does not fit this config"):
        load_into(own, {"state_dict": Rows(NAMES).state_dict() | {key: value}}, tmp_path)
    assert torch.equal(own.weight, before)
    assert own.class_names == ["fox", "owl"]
