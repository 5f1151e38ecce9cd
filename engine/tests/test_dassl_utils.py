import random

import numpy as np
import pytest
import torch
from dassl.metrics import compute_accuracy
from dassl.utils import (
    AverageMeter,
    MetricMeter,
    Registry,
    check_isfile,
    collect_env_info,
    count_num_param,
    listdir_nohidden,
    mkdir_if_missing,
    read_json,
    set_random_seed,
    write_json,
)


def test_registry_serves_as_decorator_and_as_call():
    registry = Registry("THING")

    @registry.register()
    class Decorated:
        pass

    class Called:
        pass

    registry.register(Called)
    assert registry.get("Decorated") is Decorated
    assert registry.get("Called") is Called
    assert registry.registered_names() == ["Decorated", "Called"]


def test_registry_refuses_a_second_object_of_a_name_unless_forced():
    registry = Registry("THING")
    first, second = type("Thing", (), {}), type("Thing", (), {})
    registry.register(first)
    with pytest.raises(KeyError, match="already"):
        registry.register(second)
    registry.register(second, force=True)
    assert registry.get("Thing") is second
    with pytest.raises(KeyError, match="Nothing"):
        registry.get("Nothing")


def draws():
    # NumPy's global generator is what transforms and data sets of Dassl's time draw from.
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


@pytest.mark.parametrize("seed", [0, 1])
def test_seed_fixes_all_generators(seed):
    set_random_seed(seed)
    first = draws()
    set_random_seed(seed)
    assert draws() == first
    assert random.Random(seed).random() == first[0]


def test_average_meter():
    meter = AverageMeter()
    meter.update(1.0)
    meter.update(torch.tensor(4.0), n=2)
    assert (meter.val, meter.avg, meter.count) == (4.0, 3.0, 3)


def test_metric_meter_prints_value_and_average():
    meter = MetricMeter()
    meter.update({"loss": 1.0, "acc": 50})
    meter.update({"loss": 3.0})
    meter.update(None)
    assert str(meter) == "loss 3.0000 (2.0000) acc 50.0000 (50.0000)"
    with pytest.raises(TypeError, match="list"):
        meter.update([1])


def test_files_and_folders(tmp_path):
    mkdir_if_missing(tmp_path / "a" / "b")
    mkdir_if_missing(tmp_path / "a" / "b")
    write_json({"x": [1, "é"]}, str(tmp_path / "new" / "x.json"))
    assert read_json(str(tmp_path / "new" / "x.json")) == {"x": [1, "é"]}
    (tmp_path / ".hidden").touch()
    assert listdir_nohidden(str(tmp_path), sort=True) == ["a", "new"]
    assert check_isfile(str(tmp_path / "new" / "x.json"))
    with pytest.warns(UserWarning, match="No file found"):
        assert not check_isfile(str(tmp_path / "none.json"))


def test_parameters_are_counted():
    layer = torch.nn.Linear(3, 2)
    assert count_num_param(layer) == 8
    assert count_num_param(params=[layer.bias]) == 2


def test_environment_names_the_versions():
    text = collect_env_info()
    assert torch.__version__.split("+")[0] in text
    assert "Pillow".lower() in text.lower()


def test_accuracy_counts_the_largest_scores():
    scores = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.5, 0.4], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    label = torch.tensor([0, 2, 2, 2])
    top1, top2 = compute_accuracy(scores, label, topk=(1, 2))
    assert (top1.item(), top2.item()) == (50.0, 75.0)
    assert top1.shape == (1,)
    assert compute_accuracy((scores, None), label)[0].item() == 50.0
