"""The door to CLIP weights."""

import hashlib
import random
import sys
import types

import pytest
import torch

from models.clip import load as loading
from models.clip.fetch import ATTEMPTS, digest_of


def test_unknown_backbone_lists_what_exists():
    with pytest.raises(ValueError, match=r"unknown backbone 'ViT-Z/9'.*tiny-emoji, RN50"):
        loading.load_clip("ViT-Z/9")


def test_both_spellings_of_a_name_are_understood():
    torch.manual_seed(0)
    model = loading.load_clip("TINY-EMOJI", pretrained=False)
    assert model.visual.input_resolution == 64
    assert model.dtype == torch.float32


def test_missing_clip_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "clip", None)
    with pytest.raises(ModuleNotFoundError, match="pip install clip-anytorch 'setuptools<81'"):
        loading.import_clip()


def test_another_package_called_clip_is_told_apart(monkeypatch):
    other = types.ModuleType("clip")
    other.__file__ = "clip/__init__.py"
    monkeypatch.setitem(sys.modules, "clip", other)
    with pytest.raises(ModuleNotFoundError, match="is not OpenAI's; install it with"):
        loading.import_clip()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def test_failed_download_says_what_to_fetch(cache, server, monkeypatch):
    address = server.url(f"{'0' * 64}/ViT-B-16.pt")
    monkeypatch.setitem(loading.import_clip().clip._MODELS, "ViT-B/16", address)
    with pytest.raises(FileNotFoundError, match=r"ViT-B-16\.pt and put the file into .*cache"):
        loading.load_clip("ViT-B/16")


CONTENT = random.Random(0).randbytes(100_000)


@pytest.fixture
def url(server):
    name = f"{hashlib.sha256(CONTENT).hexdigest()}/w.pt"
    server.files[name] = CONTENT
    return server.url(name)


def test_weights_are_fetched_once_and_checked(cache, server, url):
    path = loading.fetch_weights(url)
    assert path.read_bytes() == CONTENT
    server.files.clear()
    assert loading.fetch_weights(url) == path


def test_weights_are_fetched_on_from_where_the_connection_broke(cache, server, url):
    server.faults = [("cut", 10_000)] * ATTEMPTS
    with pytest.raises(FileNotFoundError, match=r"w\.pt could not be fetched.*the same command"):
        loading.fetch_weights(url)
    assert [path.name for path in cache.iterdir()] == ["w.pt.part"]
    server.seen.clear()
    assert loading.fetch_weights(url).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.seen] == ["bytes=50000-"]
    assert [path.name for path in cache.iterdir()] == ["w.pt"]


def test_a_file_of_another_digest_is_never_kept(cache, server, url):
    name = next(iter(server.files))
    server.files[name] = CONTENT[:-1]
    with pytest.raises(ValueError, match=r"w\.pt has the SHA256 checksum .*, expected .*fetch it"):
        loading.fetch_weights(url)
    assert list(cache.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="could not be fetched"):
        loading.fetch_weights(server.url(f"{'0' * 64}/w.pt"))


def test_openai_weights_load_after_their_digest_or_when_trusted(cache, clip_model, monkeypatch):
    cache.mkdir()
    clip_model.half()
    torch.save(clip_model.state_dict(), cache / "ViT-B-16.pt")
    with pytest.raises(ValueError, match=r"has SHA-256 .* or pass --trust-weights"):
        loading.load_clip("ViT-B/16")
    model = loading.load_clip("ViT-B/16", trust=True)
    assert torch.equal(model.logit_scale, clip_model.logit_scale.float())
    digest = digest_of(cache / "ViT-B-16.pt")
    clip = loading.import_clip().clip
    monkeypatch.setitem(clip._MODELS, "ViT-B/16", f"https://nowhere/{digest}/ViT-B-16.pt")
    assert loading.load_clip("ViT-B/16").logit_scale == model.logit_scale


def test_an_embedded_clip_that_is_damaged_is_refused(tmp_path):
    content = bytearray(loading.TINY_CLIP.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "tiny.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"tiny\.pt is not the embedded CLIP .* or is damaged"):
        loading.load_tiny_clip(tmp_path / "tiny.pt")
    with pytest.raises(ValueError, match=r"tiny\.pt is damaged: the checksum of its part"):
        loading.load_tiny_clip(tmp_path / "tiny.pt", digest="")


def test_missing_embedded_clip_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="make it anew with lab/pretrain_tiny_clip"):
        loading.load_tiny_clip(tmp_path / "none.pt")


def test_embedded_format_expands_to_the_full_vocabulary(tmp_path):
    torch.manual_seed(0)
    model = loading.random_clip("tiny-emoji")
    rows = torch.tensor([320, 1125, 49406, 49407])
    state = {k: v.half() for k, v in model.state_dict().items()}
    state["token_embedding.weight"] = state["token_embedding.weight"][rows]
    torch.save({"state_dict": state, "vocab_rows": rows}, tmp_path / "tiny.pt")
    loaded = loading.load_tiny_clip(tmp_path / "tiny.pt", digest="")
    table = loaded.token_embedding.weight
    assert table.shape == (loading.VOCABULARY, 128)
    assert torch.equal(table[rows], model.token_embedding.weight[rows].half().float())
    assert table[[0, 5]].abs().sum() == 0
    assert type(loaded).__module__ == "clip.model"
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


def test_shapes_for_random_weights_are_known_of_every_backbone():
    """As open_clip has them, too."""
    open_clip = pytest.importorskip("open_clip")
    assert set(loading._SHAPES) == set(loading.available_backbones())
    for name, (size, layers, width, patch, joint, text, depth) in loading._SHAPES.items():
        if name == "tiny-emoji":
            continue
        config = open_clip.get_model_config(
            name.replace("/", "-").removesuffix("px").replace("@", "-")
        )
        vision = config["vision_cfg"]
        layers = list(layers) if isinstance(layers, tuple) else layers
        found = (vision["image_size"], vision["layers"], vision["width"], vision["patch_size"])
        assert found == (size, layers, width, patch), name
        own = config["text_cfg"]
        assert (config["embed_dim"], own["width"], own["layers"]) == (joint, text, depth), name
        assert own["heads"] == text // 64
