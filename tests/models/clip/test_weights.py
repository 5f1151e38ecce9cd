"""Weights from files of every format, and files that are none."""

import pytest
import torch

from models.clip.fetch import digest_of
from models.clip.load import TINY_CLIP, load_clip, random_clip
from models.clip.openai import import_clip
from models.clip.weights import put_weights, read_weights
from tests.conftest import make_clip


@pytest.fixture
def tiny(monkeypatch):
    """The backbone ViT-B/16 in the shape of a small random CLIP, and that CLIP."""
    from models.clip import load as loading

    monkeypatch.setitem(loading._SHAPES, "ViT-B/16", (32, 3, 64, 8, 32, 64, 2))
    return make_clip()


def script(model, path):
    """A TorchScript archive of OpenAI's kind: half precision, three numbers beside the weights."""
    import_clip()
    from clip.model import convert_weights

    convert_weights(model)
    for name, value in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
        value = torch.tensor(value)
        if name in vars(model):
            delattr(model, name)
        model.register_buffer(name, value)
    state = torch.nn.Module()
    copy_tree(model, state)
    torch.jit.script(state).save(str(path))


def copy_tree(source, target):
    """The tensors of a module in modules without code."""
    for name, value in source.named_parameters(recurse=False):
        target.register_parameter(name, value)
    for name, value in source.named_buffers(recurse=False):
        target.register_buffer(name, value)
    for name, child in source.named_children():
        target.add_module(name, torch.nn.Module())
        copy_tree(child, getattr(target, name))


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def text_apart(state):
    towers = ("transformer", "token_embedding", "positional", "ln_final", "text_projection")
    return {f"text.{k}" if k.startswith(towers) else k: v for k, v in state.items()}


TABLES = {
    "a table": lambda state: state,
    "in half precision": lambda state: {k: v.half() for k, v in state.items()},
    "a checkpoint of open_clip's training": lambda state: {
        **{"epoch": 3, "name": "run", "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]}},
        "state_dict": prefixed(state, "module."),
    },
    "a text tower of its own": text_apart,
    "a temperature in a list": lambda state: state | {"logit_scale": state["logit_scale"][None]},
    "a mask beside the weights": lambda state: state | {"attn_mask": torch.zeros(77, 77)},
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_tables_of_torch(tmp_path, tiny, kind, suffix):
    path = tmp_path / f"w{suffix}"
    torch.save(TABLES[kind](tiny.state_dict()), path)
    require_equal(load_clip("ViT-B/16", weights=str(path)), tiny, kind)


@pytest.mark.parametrize("kind", [k for k in TABLES if "checkpoint" not in k])
def test_tables_of_safetensors(tmp_path, tiny, kind):
    save_file = pytest.importorskip("safetensors.torch").save_file
    path = tmp_path / "w.safetensors"
    save_file(TABLES[kind](tiny.state_dict()), path)
    require_equal(load_clip("ViT-B-16", weights=str(path)), tiny, kind)


def require_equal(loaded, expected, kind=""):
    exact = kind != "in half precision"
    for name, value in expected.state_dict().items():
        wanted = value if exact else value.half().float()
        assert torch.equal(loaded.state_dict()[name], wanted), name
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    assert not loaded.training


def test_an_archive_of_openais_only_with_its_digest_or_trust(tmp_path, tiny, monkeypatch):
    path = tmp_path / "w.pt"
    script(make_clip(), path)
    with pytest.raises(ValueError, match=r"none of those that OpenAI published; .*--trust-weights"):
        load_clip("ViT-B/16", weights=str(path))
    loaded = load_clip("ViT-B/16", weights=str(path), trust=True)
    torch.testing.assert_close(loaded.visual.proj, tiny.visual.proj, rtol=1e-3, atol=1e-3)
    models = import_clip().clip._MODELS
    monkeypatch.setitem(models, "RN50", f"https://nowhere/{digest_of(path)}/RN50.pt")
    assert load_clip("ViT-B/16", weights=str(path)).logit_scale == loaded.logit_scale


def test_the_embedded_format_is_read_too():
    loaded = load_clip("tiny-emoji", weights=str(TINY_CLIP))
    require_equal(loaded, load_clip("tiny-emoji"))


def test_statistics_of_a_resnet_are_loaded_and_the_count_of_batches_may_lack(tmp_path, resnet_clip):
    for name, value in resnet_clip.state_dict().items():
        if "running" in name:
            value.uniform_(0.5, 1.5)
    state = {k: v for k, v in resnet_clip.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "w.pt")
    import_clip()
    from clip.model import CLIP

    other = CLIP(32, 32, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 1).float().eval()
    put_weights(other, read_weights(tmp_path / "w.pt"), tmp_path / "w.pt", "RN50")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(other.encode_image(images), resnet_clip.encode_image(images))


def test_loading_a_file_draws_nothing_from_the_global_generator(tmp_path, tiny):
    torch.save(tiny.state_dict(), tmp_path / "w.pt")
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_clip("ViT-B/16", weights=str(tmp_path / "w.pt"))
    assert torch.equal(torch.rand(1), expected)


# What does not fit


def test_weights_of_another_backbone_are_refused_by_their_shapes(tmp_path, tiny):
    torch.save(random_clip("tiny-emoji").state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt are not those of ViT-B/16 .* in all; ") as met:
        load_clip("ViT-B/16", weights=str(tmp_path / "w.pt"))
    assert "positional_embedding is (77, 128) there and (77, 64) here" in str(met.value)
    assert "it has also" in str(met.value)


def test_weights_with_a_bias_of_the_logits_are_refused(tmp_path, tiny):
    torch.save(tiny.state_dict() | {"logit_bias": torch.tensor(-10.0)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="it has also logit_bias"):
        load_clip("ViT-B/16", weights=str(tmp_path / "w.pt"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1, 2], "holds no table of tensors by name"),
        ({"state_dict": {}}, "holds no table of tensors by name"),
        ({"state_dict": {"a": "text"}}, "holds no table of tensors by name"),
        ({"a": torch.zeros(2)}, "it lacks .*, ... .* in all; it has also a"),
    ],
)
def test_files_that_hold_no_clip(tmp_path, tiny, content, sentence):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=sentence):
        load_clip("ViT-B/16", weights=str(tmp_path / "w.pt"))


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_damaged_files(tmp_path, tiny, name):
    (tmp_path / name).write_bytes(b"PK no archive")
    with pytest.raises(ValueError, match=rf"{name} cannot be read as"):
        load_clip("ViT-B/16", weights=str(tmp_path / name))


def test_a_missing_file(tmp_path, tiny):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*w\.pt \(--weights\)"):
        load_clip("ViT-B/16", weights=str(tmp_path / "w.pt"))


def test_a_missing_safetensors_says_what_to_install(tmp_path, tiny, monkeypatch):
    import sys

    (tmp_path / "w.safetensors").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package safetensors"):
        load_clip("ViT-B/16", weights=str(tmp_path / "w.safetensors"))


# Damage, and numbers that are none


ODD_NUMBERS = {
    "NaN": lambda value: value * torch.nan,
    "infinite": lambda value: value + torch.inf,
    "int8": lambda value: value.to(torch.int8),
    "complex": lambda value: value * 1j,
    "a larger kind, to infinity": lambda value: value.double() + 1e300,
}


@pytest.mark.parametrize("kind", ODD_NUMBERS)
@pytest.mark.parametrize("name", ["visual.proj", "logit_scale"])
def test_weights_that_are_no_numbers_are_refused(tmp_path, tiny, kind, name):
    state = tiny.state_dict()
    torch.save(state | {name: ODD_NUMBERS[kind](state[name])}, tmp_path / "w.pt")
    said = "there and torch.float32 here" if kind in ("int8", "complex") else "holds infinite"
    with pytest.raises(ValueError, match=rf"w\.pt.*{said}") as met:
        load_clip("ViT-B/16", weights=str(tmp_path / "w.pt"))
    assert name in str(met.value)


@pytest.mark.parametrize(
    "rows",
    [[0.5], [-1], [49408], [[1]], [1, 2], {"x": 1}],
)
def test_rows_of_a_vocabulary_that_are_none(tmp_path, rows):
    rows = rows if isinstance(rows, dict) else torch.tensor(rows)
    saved = {"state_dict": {"token_embedding.weight": torch.ones(1, 128)}, "vocab_rows": rows}
    torch.save(saved, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt has vocab_rows"):
        read_weights(tmp_path / "w.pt")


def test_a_vocabulary_is_not_filled_up_to_gigabytes(tmp_path):
    table = {"token_embedding.weight": torch.ones(1, 10**6)}  # 200 GB
    torch.save({"state_dict": table, "vocab_rows": torch.tensor([0])}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="that they fit"):
        read_weights(tmp_path / "w.pt")
