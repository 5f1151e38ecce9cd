"""Each data set is arranged from archives as its authors pack them; what cannot be had is named."""

import hashlib
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from scipy.io import savemat

from datasets.base import Published
from tests.datasets.config import build, flat
from tests.datasets.trees import PER_CLASS, TREES, WNIDS, class_folders, class_list, plant, text
from tools import prepare_data
from tools.data import sources
from tools.data.sources import COLLECTION, benchmarks, find_name, read_sources

SOURCES = read_sources()
FETCHED = (
    "Caltech101",
    "OxfordPets",
    "OxfordFlowers",
    "Food101",
    "FGVCAircraft",
    "DescribableTextures",
    "EuroSAT",
)
ARCHIVED = [name for name in TREES if name != "ImageNet"]


def pack(path, members):
    """Write an archive of {name in it: path}, in the format that its own name tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, source in members.items():
                inner = sorted(source.rglob("*")) if source.is_dir() else [source]
                for file in inner:
                    archive.write(file, name / file.relative_to(source) if file != source else name)
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
            for name, source in members.items():
                archive.add(source, name)


def pack_piece(piece, tree, where):
    """Pack what a piece gives out of a planted tree, as the table says its archive holds it."""
    if not piece.moves:
        shutil.copy(tree / piece.file, where / piece.file)
        return
    members = {}
    for inside, target in piece.moves:
        outer, dot, inner = inside.partition(".tar.gz/")
        if dot:
            pack(where / "nested.tar.gz", {inner: tree / target})
            members[f"{outer}.tar.gz"] = where / "nested.tar.gz"
        else:
            members[inside] = tree / target
    pack(where / piece.file, members)


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Plant a tree, pack it into archives, and take the table and the counts for those of it."""

    def go(name):
        tree = plant(name, tmp_path / "planted")
        planted, archives = tmp_path / "planted" / tree.folder, tmp_path / "archives"
        archives.mkdir()
        for extra in ("meta", "imdb"):
            text(planted / extra / "list.txt", ["a"])
        dataset = build(name, tmp_path / "planted")
        counts = [len(part or []) for part in (dataset.train_x, dataset.val, dataset.test)]
        cls = benchmarks()[name]
        monkeypatch.setattr(cls, "published", Published(len(tree.class_names), *counts))
        monkeypatch.setattr("tools.prepare_data.CLASSES", len(WNIDS))
        pieces = []
        for piece in SOURCES[name]:
            pack_piece(piece, planted, archives)
            content = (archives / piece.file).read_bytes()
            pieces.append(piece._replace(md5=piece.md5 and hashlib.md5(content).hexdigest()))
        change(name, pieces)
        return dataset, archives

    def change(name, pieces):
        table = SOURCES | {name: tuple(pieces)}
        monkeypatch.setattr("tools.data.sources.read_sources", lambda: table)

    go.change = change
    return go


def prepare(tmp_path, *words):
    return prepare_data.main([*words, "--root", str(tmp_path / "root")])


def moved(items, tmp_path):
    return flat([*items]) and [
        (item.impath.replace(str(tmp_path / "root"), str(tmp_path / "planted")), item.label)
        for item in items
    ]


@pytest.mark.parametrize("name", ARCHIVED)
def test_archives_that_the_user_has_are_arranged(name, packed, tmp_path, capsys):
    planted, archives = packed(name)
    assert prepare(tmp_path, name, "--archives", str(archives)) == 0
    assert "tools/check_data.py" in capsys.readouterr().out
    found = build(name, tmp_path / "root")
    for part in ("train_x", "val", "test"):
        ours, theirs = getattr(found, part) or [], getattr(planted, part) or []
        assert moved(ours, tmp_path) == [(item.impath, item.label) for item in theirs]
    folder = tmp_path / "root" / benchmarks()[name].dataset_dir
    expected = {path.partition("/")[0] for piece in SOURCES[name] for path in piece.gives}
    assert {path.name for path in folder.iterdir()} == expected
    assert all((archives / piece.file).exists() for piece in SOURCES[name])
    shutil.rmtree(archives)
    assert prepare(tmp_path, name) == 0
    out = capsys.readouterr().out
    assert "done" not in out
    assert out.count("in place") == len(SOURCES[name])


@pytest.mark.parametrize("name", FETCHED)
def test_what_can_be_fetched_is_fetched(name, packed, tmp_path, server, capsys):
    _, archives = packed(name)
    for path in archives.iterdir():
        server.files[path.name] = path.read_bytes()
    pieces = sources.read_sources()[name]
    assert all(piece.url or piece.drive for piece in pieces)
    packed.change(
        name, [piece._replace(url=piece.url and server.url(piece.file)) for piece in pieces]
    )
    server.faults = [("cut", 500)]
    assert prepare(tmp_path, name, "--mirror", server.url()) == 0
    assert server.seen[1][1] == "bytes=500-"
    build(name, tmp_path / "root")
    folder = tmp_path / "root" / benchmarks()[name].dataset_dir
    assert not list(folder.glob("*.gz")) + list(folder.glob("*.zip")) + list(folder.glob("*.part"))


def test_a_wrong_checksum_of_a_users_archive_leaves_it_alone(packed, tmp_path, capsys):
    _, archives = packed("ImageNetA")
    (archives / "imagenet-a.tar").write_bytes(b"something else")
    assert prepare(tmp_path, "imagenet_a", "--archives", str(archives)) == 2
    assert "imagenet-a.tar has the MD5 checksum" in capsys.readouterr().err
    assert (archives / "imagenet-a.tar").read_bytes() == b"something else"


def test_a_refused_archive_leaves_nothing_behind(packed, tmp_path, capsys):
    _, archives = packed("ImageNetSketch")
    with zipfile.ZipFile(archives / "ImageNet-Sketch.zip", "a") as archive:
        archive.writestr("../../evil", "evil")
    assert prepare(tmp_path, "ImageNetSketch", "--archives", str(archives)) == 2
    error = capsys.readouterr().err
    assert "'../../evil' would be written outside" in error
    assert error.count("\n") == 1
    assert list((tmp_path / "root").iterdir()) == []


def test_an_archive_of_something_else_is_named(packed, tmp_path, capsys):
    _, archives = packed("ImageNetV2")
    pack(archives / "imagenetv2-matched-frequency.tar.gz", {"other": archives / "classnames.txt"})
    assert prepare(tmp_path, "ImageNetV2", "--archives", str(archives)) == 2
    assert "lacks imagenetv2-matched-frequency-format-val; at its top it holds other" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("content", ["<html>too many users</html>", '{"train": 1}'])
def test_a_page_instead_of_a_split_file_is_not_kept(content, packed, tmp_path, server, capsys):
    _, archives = packed("EuroSAT")
    server.files["split_zhou_EuroSAT.json"] = content.encode()
    (archives / "split_zhou_EuroSAT.json").unlink()
    options = ("--archives", str(archives), "--mirror", server.url())
    assert prepare(tmp_path, "EuroSAT", *options) == 2
    assert "EuroSAT.json is not the published file" in capsys.readouterr().err
    assert not (tmp_path / "root" / "eurosat" / "split_zhou_EuroSAT.json").exists()


def test_a_split_file_with_other_counts_is_not_kept(packed, tmp_path, monkeypatch, capsys):
    _, archives = packed("EuroSAT")
    monkeypatch.setattr(benchmarks()["EuroSAT"], "published", Published(10, 13_500, 5400, 8100))
    assert prepare(tmp_path, "EuroSAT", "--archives", str(archives)) == 2
    error = capsys.readouterr().err
    assert "train=15" in error
    assert "expected Published(classes=10, train=13500" in error


def test_a_server_that_fails_does_not_keep_the_rest_waiting(packed, tmp_path, server, capsys):
    _, archives = packed("OxfordPets")
    pieces = sources.read_sources()["OxfordPets"]
    packed.change("OxfordPets", [pieces[0]._replace(url=server.url("gone.tar.gz")), *pieces[1:]])
    (archives / "images.tar.gz").unlink()
    assert prepare(tmp_path, "oxford_pets", "--archives", str(archives)) == 1
    out = capsys.readouterr().out
    assert "images: missing. http" in out
    assert "the server answers 404" in out
    assert "annotations: done" in out
    assert f"from {server.url('gone.tar.gz')}" in out


@pytest.mark.parametrize("name", [name for name in TREES if name not in FETCHED])
def test_the_rest_is_said_exactly(name, tmp_path, capsys, server, monkeypatch):
    """What to get from where, what is dead; with the class lists and split files on a mirror."""
    monkeypatch.setattr(prepare_data, "require_content", lambda dataset, path: None)
    for piece in SOURCES[name]:
        if piece.drive:
            server.files[piece.file] = b"served"
    assert prepare(tmp_path, name, "--mirror", server.url()) == 1
    out = capsys.readouterr().out
    told = out.partition("repeat the command with --archives FOLDER:")[2]
    for piece in SOURCES[name]:
        if piece.drive:
            assert f"{piece.file}: done" in out
        elif not piece.raw:
            assert f"  {piece.file}\n" in told
            assert all(f"    from {place}\n" in told + "\n" for place in piece.where)
            assert all(f"    dead: {address}\n" in told + "\n" for address in piece.dead)
            assert not piece.md5 or f"    MD5 {piece.md5}" in told
        else:
            assert piece.file not in told


def test_what_a_split_is_made_from_is_asked_for_without_a_split_file(tmp_path, capsys, server):
    assert prepare(tmp_path, "StanfordCars", "--mirror", server.url()) == 1
    out = capsys.readouterr().out
    assert "split_zhou_StanfordCars.json: missing." in out
    assert "car_devkit.tgz (only without the split file)" in out
    assert "from https://drive.google.com/file/d/1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT/view" in out


@pytest.mark.parametrize("name", ["Caltech101", "Food101", "StanfordCars"])
def test_the_collections_archive_is_the_whole_folder(name, packed, tmp_path):
    planted, _ = packed(name)
    folder = benchmarks()[name].dataset_dir
    archive = {"Food101": "food101.zip"}.get(name, f"{folder}.zip")  # Caltech's own is called so
    pack(tmp_path / "got" / archive, {folder: tmp_path / "planted" / folder})
    assert prepare(tmp_path, name, "--archives", str(tmp_path / "got")) == 0
    assert moved(build(name, tmp_path / "root").test, tmp_path) == [
        (item.impath, item.label) for item in planted.test
    ]


def test_fetched_archives_stay_if_asked(packed, tmp_path, server):
    _, archives = packed("EuroSAT")
    server.files = {path.name: path.read_bytes() for path in archives.iterdir()}
    pieces = sources.read_sources()["EuroSAT"]
    packed.change("EuroSAT", [pieces[0]._replace(url=server.url("EuroSAT.zip")), *pieces[1:]])
    assert prepare(tmp_path, "EuroSAT", "--mirror", server.url(), "--keep") == 0
    assert (tmp_path / "root" / "eurosat" / "EuroSAT.zip").is_file()


@pytest.fixture
def ilsvrc(tmp_path, monkeypatch):
    """ImageNet's three archives: a tar of tars, a heap of pictures, the development kit."""
    archives = tmp_path / "archives"
    class_folders(tmp_path / "heap" / "train", WNIDS, "JPEG")
    for wnid in WNIDS:
        files = {path.name: path for path in (tmp_path / "heap" / "train" / wnid).iterdir()}
        pack(tmp_path / "tars" / f"{wnid}.tar", files)
    tars = {path.name: path for path in (tmp_path / "tars").iterdir()}
    pack(archives / "ILSVRC2012_img_train.tar", tars)
    heap = sorted((tmp_path / "heap" / "train").glob("*/*"))
    names = {f"ILSVRC2012_val_{n:08d}.JPEG": path for n, path in enumerate(heap[::-1], start=1)}
    pack(archives / "ILSVRC2012_img_val.tar", names)
    ids = {wnid: 7 + number for number, wnid in enumerate(reversed(WNIDS))}  # not in their order
    rows = np.zeros((len(ids), 1), dtype=[("ILSVRC2012_ID", object), ("WNID", object)])
    for row, (wnid, number) in enumerate(ids.items()):
        rows[row, 0] = (number, wnid)
    data = tmp_path / "kit" / "data"
    data.mkdir(parents=True)
    savemat(data / "meta.mat", {"synsets": rows})
    truth = [ids[path.parent.name] for path in heap[::-1]]
    text(data / "ILSVRC2012_validation_ground_truth.txt", map(str, truth))
    pack(archives / "ILSVRC2012_devkit_t12.tar.gz", {"ILSVRC2012_devkit_t12": tmp_path / "kit"})
    class_list(archives)
    table = {"ImageNet": tuple(piece._replace(md5="") for piece in SOURCES["ImageNet"])}
    monkeypatch.setattr("tools.data.sources.read_sources", lambda: table)
    monkeypatch.setattr("tools.prepare_data.CLASSES", len(WNIDS))
    return archives, {name: path.parent.name for name, path in names.items()}


def test_imagenets_archives_are_sorted_into_folders(ilsvrc, tmp_path):
    archives, truth = ilsvrc
    assert prepare(tmp_path, "imagenet", "--archives", str(archives)) == 0
    dataset = build("ImageNet", tmp_path / "root")
    assert dataset.classnames == list(WNIDS.values())
    assert len(dataset.train_x) == len(dataset.test) == PER_CLASS * len(WNIDS)
    folder = tmp_path / "root" / "imagenet" / "images" / "val"
    assert {path.name: path.parent.name for path in folder.glob("*/*")} == truth


def test_imagenets_validation_needs_the_kit(ilsvrc, tmp_path, capsys):
    archives, _ = ilsvrc
    (archives / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    assert prepare(tmp_path, "ImageNet", "--archives", str(archives)) == 1
    out = capsys.readouterr().out
    assert "images/train: done" in out
    assert "ILSVRC2012_devkit_t12.tar.gz is missing; it says which class" in out


def test_imagenets_kit_and_pictures_must_agree(ilsvrc, tmp_path, capsys):
    archives, truth = ilsvrc
    picture = next(iter((tmp_path / "heap").rglob("*.JPEG")))
    pack(archives / "ILSVRC2012_img_val.tar", dict.fromkeys(list(truth)[1:], picture))
    assert prepare(tmp_path, "ImageNet", "--archives", str(archives)) == 2
    assert "holds 29 pictures, but" in capsys.readouterr().err


def test_class_lists_of_the_variants_come_from_imagenet(packed, tmp_path):
    _, archives = packed("ImageNetR")
    (tmp_path / "root" / "imagenet").mkdir(parents=True)
    (archives / "classnames.txt").rename(tmp_path / "root" / "imagenet" / "classnames.txt")
    assert prepare(tmp_path, "ImageNetR", "--archives", str(archives)) == 0
    assert build("ImageNetR", tmp_path / "root").classnames == list(WNIDS.values())[1:]


def test_names_and_stems_are_understood_and_others_listed(tmp_path, capsys):
    assert find_name("dtd") == find_name("describabletextures") == "DescribableTextures"
    assert prepare(tmp_path, "Caltech") == 2
    assert "'Caltech' is no data set; choose one of Caltech101, " in capsys.readouterr().err
    assert prepare(tmp_path, "folder") == 2
    assert "Folder needs no preparation; those that do: Caltech101, " in capsys.readouterr().err


def test_the_table_of_sources_is_complete():
    assert set(SOURCES) == set(TREES) == set(benchmarks())
    for name, pieces in SOURCES.items():
        cls = benchmarks()[name]
        given = {path for piece in pieces for path in piece.gives}
        assert cls.split_file in given or not cls.split_file
        assert set(cls.raw_files) <= given | {
            file for file in cls.raw_files if file.partition("/")[0] in given
        }
        for piece in pieces:
            assert all(isinstance(value, str) for value in (*piece.gives, piece.md5, piece.drive))
            assert piece.places
            assert len(piece.md5) in (0, 32)
        if name not in ("ImageNet", *FETCHED):
            assert any(COLLECTION in piece.where for piece in pieces)
