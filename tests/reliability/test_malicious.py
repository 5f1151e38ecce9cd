"""Files from strangers are read and never run: each would leave a trace, and none does."""

import ast
import io
import json
import os
import pickle
import re
import shutil
import tarfile
import zipfile

import pytest
import torch
from dassl.utils import load_checkpoint

from models.clip import load as loading
from models.clip.fetch import digest_of
from runs.config import default_config
from runs.identity import changed_settings
from tests.reliability.conftest import PROJECT
from tests.reliability.runs import OPTIONS
from tools.data.unpack import unpack

LAST = OPTIONS | {"OPTIM__MAX_EPOCH": 1}


class Evil:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.fixture
def trace(tmp_path, counted):
    path = tmp_path / "trace"
    yield path
    with counted("hostile files that would run code or write elsewhere, and left no trace"):
        assert not path.exists()


@pytest.fixture
def trained(run, tmp_path):
    run("CoOp", "trained", **LAST)
    return tmp_path / "trained" / "prompt_learner" / "model.pth.tar-1"


def test_the_trace_is_left_where_such_a_file_is_run(tmp_path):
    pickle.loads(pickle.dumps(Evil(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("old", [False, True])
def test_a_checkpoint_with_code(trained, trace, fails, witness, old):
    saved = torch.load(trained, weights_only=True) | {"epoch": Evil(trace)}
    torch.save(saved, trained, _use_new_zipfile_serialization=not old)
    flags = ("--eval-only", "--model-dir", str(trained.parents[1]))
    found = fails("CoOp", "eval", flags=flags, **LAST)
    assert "is refused, because it pickles posix.system" in found
    witness("malicious", f"a checkpoint {'of an old torch ' if old else ''}that runs code", found)


def test_a_bare_pickle_as_a_checkpoint(trained, trace, fails, witness):
    trained.write_bytes(pickle.dumps({"state_dict": Evil(trace)}))
    flags = ("--eval-only", "--model-dir", str(trained.parents[1]))
    found = fails("CoOp", "eval", flags=flags, **LAST)
    witness("malicious", "a bare pickle that runs code, as a checkpoint", found)


def test_a_checkpoint_with_code_to_go_on_from(trained, trace, run, tmp_path, witness):
    torch.save(torch.load(trained, weights_only=True) | {"epoch": Evil(trace)}, trained)
    run("CoOp", "trained", **LAST)
    fault = "a checkpoint that runs code, to go on from"
    witness("malicious", fault, "warning that it is refused, begins anew")


def test_clip_weights_with_code(trace, fails, tmp_path, monkeypatch, witness):
    monkeypatch.setattr(loading, "CACHE", tmp_path)
    torch.save(Evil(trace), tmp_path / "ViT-B-16.pt")
    options = {"MODEL__BACKBONE__NAME": "ViT-B/16", "MODEL__BACKBONE__PRETRAINED": True}
    found = fails("CoOp", **LAST | options)
    assert "is not loaded, because TorchScript can run code" in found
    digest = digest_of(tmp_path / "ViT-B-16.pt")[:12]
    witness("malicious", "CLIP weights of another SHA-256", found.replace(digest, "0123456789ab"))


def test_a_scripted_module_is_not_loaded_before_its_digest(fails, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "CACHE", tmp_path)
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("loaded unseen"))
    (tmp_path / "ViT-B-16.pt").write_bytes(b"a TorchScript archive")
    options = {"MODEL__BACKBONE__NAME": "ViT-B/16", "MODEL__BACKBONE__PRETRAINED": True}
    assert "or pass --trust-weights" in fails("CoOp", **LAST | options)


@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.safetensors"])
def test_a_file_of_weights_with_code(trace, fails, tmp_path, witness, name):
    torch.save({"state_dict": Evil(trace)}, tmp_path / name)
    options = {"MODEL__BACKBONE__PRETRAINED": True}
    found = fails("CoOp", flags=("--weights", str(tmp_path / name)), **LAST | options)
    kind = "cannot be read as safetensors" if "safe" in name else "is refused, because it pickles"
    assert f"{name} {kind}" in found
    if name == "w.pt":
        witness("malicious", "a file of weights that runs code", found)


def test_a_scripted_file_of_weights_is_not_loaded_unseen(fails, tmp_path, monkeypatch, witness):
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("loaded unseen"))
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "w.pt"))
    options = {"MODEL__BACKBONE__PRETRAINED": True}
    found = fails("CoOp", flags=("--weights", str(tmp_path / "w.pt")), **LAST | options)
    assert "is not loaded, because TorchScript can run code" in found
    digest = digest_of(tmp_path / "w.pt")[:12]
    witness("malicious", "a TorchScript file of weights", found.replace(digest, "0123456789ab"))


def test_an_embedded_clip_with_code(trace, tmp_path, witness):
    torch.save({"state_dict": Evil(trace)}, tmp_path / "tiny.pt")
    with pytest.raises(ValueError, match="is not the embedded CLIP of this project"):
        loading.load_tiny_clip(tmp_path / "tiny.pt")
    with pytest.raises(ValueError, match="is refused, because it pickles") as met:
        loading.load_tiny_clip(tmp_path / "tiny.pt", digest="")
    witness("malicious", "an embedded CLIP that runs code", str(met.value))


@pytest.mark.parametrize("flag", ["--config-file", "--dataset-config-file"])
def test_a_yaml_with_a_python_tag(trace, fails, tmp_path, witness, flag):
    path = tmp_path / "evil.yaml"
    path.write_text(f"OPTIM: !!python/object/apply:os.system ['touch {trace}']\n")
    found = fails("CoOp", flags=(flag, str(path)), **LAST)
    assert "could not determine a constructor for the tag" in found
    witness("malicious", f"a yaml with a Python tag, as {flag}", found)


def test_the_config_of_a_strangers_run(trace, tmp_path, trained):
    from inference.open import open_run

    config = trained.parents[1] / "config.yaml"
    config.write_text(f"OPTIM: !!python/object/apply:os.system ['touch {trace}']\n")
    with pytest.raises(ValueError, match="is not a yaml of keys and values"):
        open_run(trained.parents[1])


@pytest.mark.parametrize("value", ["__import__('os').system('touch {}')", "[].__class__"])
def test_code_as_a_value_is_a_text(trace, fails, witness, value):
    found = fails("CoOp", **LAST | {"OPTIM__LR": value.format(trace)})
    assert "OPTIM.LR must be a number from 0 on, got" in found


def test_a_few_shot_subset_with_code(run, trace, toy_root, witness):
    cache = toy_root / "toy" / "split_fewshot" / "shot_2-seed_6.json"
    cache.parent.mkdir(exist_ok=True)
    cache.write_bytes(pickle.dumps(Evil(trace)))
    run("CoOp", flags=("--seed", "6"), **LAST)
    assert json.loads(cache.read_text())["train"]
    witness("malicious", "a pickle that runs code, as a few-shot subset", "warning, drawn anew")


def archives(folder, name):
    """An archive of each kind with a member of that name."""
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        archive.writestr("good", "good")
        archive.writestr(name, "trace")
    with tarfile.open(folder / "evil.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("good"))
        member = tarfile.TarInfo(name)
        member.size = 5
        archive.addfile(member, io.BytesIO(b"trace"))
    return [folder / "evil.zip", folder / "evil.tar.gz"]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", ["../trace", "a/../../trace", "{}"])
def test_an_archive_that_climbs_out(trace, tmp_path, witness, which, name):
    inside = tmp_path / "target"
    inside.mkdir()
    source = archives(tmp_path, name.format(trace))[which]
    with pytest.raises(ValueError, match="would be written outside") as met:
        unpack(shutil.move(source, inside / source.name), inside)
    assert [path.name for path in inside.iterdir()] == [source.name]  # not the good one either
    how = "with an absolute path" if name == "{}" else "that climbs out"
    if name != "a/../../trace":
        witness("malicious", f"an archive {source.name[5:]} {how}", str(met.value))


def test_a_link_in_an_archive_leads_nowhere(trace, tmp_path, witness):
    inside, path = tmp_path / "target", tmp_path / "evil.tar"
    inside.mkdir()
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        member = tarfile.TarInfo("link/trace")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"trace"))
    with pytest.raises(ValueError, match="is no file of the archive") as met:
        unpack(shutil.move(path, inside / path.name), inside)
    witness("malicious", "an archive with a link that leads out", str(met.value))


def test_a_chain_of_links_longer_than_a_path_leads_nowhere(trace, tmp_path, witness):
    """CVE-2025-4517: the library's own check gives up where a path is too long to be resolved."""
    inside, path, below = tmp_path / "target", tmp_path / "evil.tar", ""
    inside.mkdir()
    with tarfile.open(path, "w") as archive:

        def add(name, kind, link=""):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            archive.addfile(member)

        add("good", tarfile.REGTYPE)
        for step in "abcdefghijklmnop":
            add(f"{below}{'d' * 247}", tarfile.DIRTYPE)
            add(f"{below}{step}", tarfile.SYMTYPE, "d" * 247)
            below += f"{step}/"
        add(f"{below}{'l' * 254}", tarfile.SYMTYPE, "../" * 16)
        add("escape", tarfile.SYMTYPE, f"{below}{'l' * 254}/../trace")
        add("escape", tarfile.REGTYPE)
    with pytest.raises(ValueError, match=r"is refused: .*'escape' twice") as met:
        unpack(shutil.move(path, inside / path.name), inside)
    assert [path.name for path in inside.iterdir()] == [path.name]
    fault = "an archive with a chain of links longer than a path (CVE-2025-4517)"
    witness("malicious", fault, str(met.value))


def test_a_checkpoint_cannot_name_what_the_engine_allows_for_itself(trace, tmp_path):
    """The stand-ins for schedulers hold what a file says and call nothing."""

    class Fake:
        def __reduce__(self):
            from collections import defaultdict

            return defaultdict, (Evil(trace),)

    torch.save({"state_dict": {}, "optimizer": Fake()}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth is refused|cannot be read"):
        load_checkpoint(tmp_path / "x.pth")


FORBIDDEN = {
    ("pickle", "load"), ("pickle", "loads"), ("yaml", "load"), ("yaml", "unsafe_load"),
    ("yaml", "full_load"), ("jit", "load"), ("shelve", "open"), ("marshal", "loads"),
    ("os", "system"), ("builtins", "eval"), ("builtins", "exec"),
}  # fmt: skip
SOURCES = [
    path
    for folder in ("models", "trainers", "datasets", "tools", "engine/src")
    for path in sorted((PROJECT / folder).rglob("*.py"))
]


@pytest.mark.parametrize("path", [*SOURCES, PROJECT / "train.py"], ids=lambda p: p.name)
def test_nothing_in_the_sources_reads_what_can_run(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            called = ("builtins", node.func.id)
        elif isinstance(node.func, ast.Attribute):
            owner = node.func.value
            called = (getattr(owner, "id", getattr(owner, "attr", "")), node.func.attr)
        else:
            continue
        assert called not in FORBIDDEN, f"line {node.lineno}"
        options = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
        assert options.get("allow_pickle") is not True, f"line {node.lineno}"
        assert options.get("shell") is not True, f"line {node.lineno}"
        if called == ("torch", "load"):
            assert options.get("weights_only") is True, f"line {node.lineno}"


@pytest.mark.parametrize("kind", ["a checkpoint", "a file of weights"])
def test_packed_zeros_do_not_become_gigabytes(trained, fails, tmp_path, witness, kind):
    """2 GiB of zeros in 2 MB."""
    path = trained if kind == "a checkpoint" else tmp_path / "w.pt"
    torch.save({"state_dict": {"ctx": torch.zeros(1)}, "epoch": 1}, path)
    with zipfile.ZipFile(path) as plain:
        parts = {name: plain.read(name) for name in plain.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in parts.items():
            with packed.open(name, "w", force_zip64=True) as part:
                part.write(content)
                for _ in range(2048 if name.endswith("data/0") else 0):
                    part.write(bytes(2**20))
    flags = ("--eval-only", "--model-dir", str(trained.parents[1]))
    if kind != "a checkpoint":
        flags = ("--weights", str(path))
    found = fails("CoOp", "eval", flags=flags, **LAST | {"MODEL__BACKBONE__PRETRAINED": True})
    assert "bytes would become many times as many" in found
    found = re.sub(r"its [\d,]+ bytes", "its ... bytes", found)
    witness("malicious", f"{kind} of 2 MB that unpacks to 2 GiB", found)


def test_values_within_values_are_counted(trained, fails):
    """2^60 lists, each the pair of the one before, in a few hundred bytes; and one in itself."""
    pair, cycle = [], []
    cycle.append(cycle)
    for _ in range(40):
        pair = [pair, pair]
    for value in (pair, cycle):
        saved = torch.load(trained, weights_only=True)
        saved["identity"]["config"]["OPTIM.LR"] = value
        torch.save(saved, trained)
        flags = ("--eval-only", "--model-dir", str(trained.parents[1]))
        found = fails("CoOp", "eval", flags=flags, **LAST)
        assert "it holds too many values within values" in found
        saved["identity"]["config"]["OPTIM.LR"] = 0.02
        torch.save(saved, trained)


def test_the_folder_of_a_teacher_is_no_format_string(fails):
    """`{seed:1000000000}` would be a text of a gigabyte; tables read it in a stranger's config."""
    folder = "none/{seed:1000000000}/{dataset.no_attribute}"
    found = fails("PromptKD", TRAINER__PROMPTKD__TEACHER_DIR=folder)
    assert folder in found
    cfg = default_config()
    cfg.TRAINER.PROMPTKD.TEACHER_DIR = folder
    assert changed_settings(cfg, {"PROMPTKD"}) == {"TRAINER.PROMPTKD.TEACHER_DIR": folder}
