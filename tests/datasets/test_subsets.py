"""Few-shot subsets on disk: written whole by whoever comes, upstream's pickles read with care."""

import json
import multiprocessing
import pickle
import random
import shutil
import stat
from pathlib import Path

import pytest
from dassl.data.datasets import Datum

from datasets import splits
from datasets.splits import write_json
from tests.datasets.config import build, flat
from tests.datasets.trees import class_folders, plant


def draw_at_once(root, barrier, seen):
    barrier.wait()
    seen.put(flat(build("EuroSAT", root, shots=2).train_x))


def test_processes_that_draw_at_once_leave_one_valid_file(tmp_path):
    plant("EuroSAT", tmp_path)
    context = multiprocessing.get_context("fork")
    barrier, seen = context.Barrier(4), context.Queue()
    workers = [
        context.Process(target=draw_at_once, args=(tmp_path, barrier, seen)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    found = [seen.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert found == [found[0]] * 4
    (file,) = (tmp_path / "eurosat" / "split_fewshot").iterdir()
    assert file.name == "shot_2-seed_1.json"
    assert len(json.loads(file.read_text())["train"]) == 6


def test_what_is_written_is_whole_from_the_first_moment_on(tmp_path, monkeypatch):
    """Between the write of the content and its name, nobody sees a file of that name."""
    path, seen = tmp_path / "a.json", []
    dumps = json.dumps
    monkeypatch.setattr(splits.json, "dumps", lambda x: (seen.append(path.exists()), dumps(x))[1])
    write_json(path, {"a": 1})
    assert seen == [False]
    assert json.loads(path.read_text()) == {"a": 1}
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_writers_do_not_share_what_they_have_not_finished(tmp_path, monkeypatch):
    names, replace = [], Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (names.append(self), replace(self, to))[1]
    )
    for _ in range(2):
        write_json(tmp_path / "a.json", {})
    assert len(set(names)) == 2
    assert {path.parent for path in names} == {tmp_path}


def test_nothing_is_left_of_a_write_that_fails(tmp_path):
    (tmp_path / "a.json").mkdir()
    write_json(tmp_path / "a.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.fixture
def pets(tmp_path):
    plant("OxfordPets", tmp_path)
    build("OxfordPets", tmp_path)
    return tmp_path


def as_pickled(**attributes):
    """Upstream's item of another machine, where the picture lay."""
    item = Datum.__new__(Datum)
    vars(item).update(attributes)
    return item


def pickled(pets, dataset, moved="/home/someone/data/oxford_pets/images", **more):
    def move(items):
        return [
            as_pickled(
                _impath=f"{moved}/{item.impath.rpartition('/')[2]}",
                _label=item.label,
                _domain=0,
                _classname=item.classname,
            )
            for item in items
        ]

    content = {"train": move(dataset.train_x), "val": move(dataset.val)} | more
    folder = pets / "oxford_pets" / "split_fewshot"
    folder.mkdir(exist_ok=True)
    path = folder / "shot_1-seed_1.pkl"
    path.write_bytes(pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL))
    return path


def test_upstreams_pickle_of_another_machine_is_used(pets):
    other = build("OxfordPets", pets, shots=1, seed=5)
    usual = build("OxfordPets", pets, shots=1, seed=1)
    assert flat(usual.train_x) != flat(other.train_x)
    (pets / "oxford_pets" / "split_fewshot" / "shot_1-seed_1.json").unlink()
    pickled(pets, other)
    random.seed(3)
    found = build("OxfordPets", pets, shots=1, seed=1)
    assert flat(found.train_x) == flat(other.train_x)
    assert flat(found.val) == flat(other.val)
    (pets / "oxford_pets" / "split_fewshot" / "shot_1-seed_1.pkl").unlink()
    assert flat(build("OxfordPets", pets, shots=1, seed=1).train_x) == flat(other.train_x)


def test_upstreams_pickle_is_preferred_to_a_subset_drawn_before(pets):
    other = build("OxfordPets", pets, shots=1, seed=5)
    assert flat(build("OxfordPets", pets, shots=1, seed=1).train_x) != flat(other.train_x)
    pickled(pets, other)
    assert flat(build("OxfordPets", pets, shots=1, seed=1).train_x) == flat(other.train_x)


@pytest.mark.parametrize("whole", [True, False])
def test_imagenet_is_drawn_in_the_order_that_upstream_listed(tmp_path, whole):
    plant("ImageNet", tmp_path)
    listed = build("ImageNet", tmp_path).train_x[:: 1 if whole else 2][::-1]
    items = [as_pickled(**(vars(item) | {"_impath": f"/old{item.impath}"})) for item in listed]
    content = pickle.dumps({"train": items, "test": []}, protocol=pickle.HIGHEST_PROTOCOL)
    usual = build("ImageNet", tmp_path, shots=2, seed=1)
    (tmp_path / "imagenet" / "preprocessed.pkl").write_bytes(content)
    found = build("ImageNet", tmp_path, shots=2, seed=1)
    random.seed(1)
    drawn = [
        item
        for label in dict.fromkeys(item.label for item in listed)
        for item in random.sample([one for one in listed if one.label == label], 2)
    ] if whole else usual.train_x
    assert flat(found.train_x) == flat(drawn)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("what", ["code", "another data set", "garbage", "strings"])
def test_a_pickle_that_is_no_subset_of_this_data_is_not_used(pets, what, tmp_path, caplog):
    usual = build("OxfordPets", pets, shots=1, seed=1)
    (pets / "oxford_pets" / "split_fewshot" / "shot_1-seed_1.json").unlink()
    if what == "another data set":
        path = pickled(pets, usual, moved="/data/dogs/pictures")
    else:
        more = {"code": {"bomb": Bomb(tmp_path / "boom")}, "strings": {"train": ["a.jpg"]}}
        path = pickled(pets, usual, **more.get(what, {}))
    if what == "garbage":
        path.write_bytes(b"\x80garbage")
    found = build("OxfordPets", pets, shots=1, seed=1)
    assert flat(found.train_x) == flat(usual.train_x)
    assert f"{path} is not used" in caplog.text
    assert not (tmp_path / "boom").exists()
    if what == "code":
        assert "open, which may run code" in caplog.text


def spoil(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


SPOILT = {
    "a picture of the test": lambda c: c["train"][0].__setitem__(0, c["val"][0][0]),
    "a picture that is nowhere": lambda c: c["train"][0].__setitem__(0, "../secret.jpg"),
    "a changed label": lambda c: c["train"][0].__setitem__(1, 1),
    "a label with two names": lambda c: c["train"][0].__setitem__(2, "wasp"),
    "a picture twice": lambda c: c["train"].__setitem__(1, c["train"][0]),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_subset_that_the_split_does_not_hold_is_drawn_anew(tmp_path, caplog, fault):
    plant("EuroSAT", tmp_path)
    drawn = flat(build("EuroSAT", tmp_path, shots=2).train_x)
    cache = tmp_path / "eurosat" / "split_fewshot" / "shot_2-seed_1.json"
    spoil(cache, SPOILT[fault])
    caplog.set_level("WARNING", "datasets")
    assert flat(build("EuroSAT", tmp_path, shots=2).train_x) == drawn
    assert f"The few-shot subset {cache} is drawn anew: " in caplog.text
    caplog.clear()
    assert flat(build("EuroSAT", tmp_path, shots=2).train_x) == drawn
    assert "drawn anew" not in caplog.text


def test_own_data_have_a_name_of_their_own(tmp_path):
    """The folder's name and a part of the digest, which moves with the data; or what is asked."""
    class_folders(tmp_path / "here" / "pets", ["bee", "cat"])
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    one, other = (build("Folder", tmp_path / place / "pets") for place in ("here", "there"))
    assert one.label == other.label == f"pets-{one.digest[:6]}"
    assert one.own_name == "pets"
    with next((tmp_path / "there" / "pets" / "cat").iterdir()).open("ab") as file:
        file.write(b"more")
    assert build("Folder", tmp_path / "there" / "pets").label != one.label
    (tmp_path / "there" / "pets" / "bee").rename(tmp_path / "there" / "pets" / "wasp")
    changed = build("Folder", tmp_path / "there" / "pets")
    assert changed.digest != one.digest
    assert changed.label != one.label
    plant("OxfordPets", tmp_path)
    assert build("OxfordPets", tmp_path).label == "OxfordPets"
