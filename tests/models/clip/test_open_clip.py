"""Models of open_clip: features equal to open_clip's own; what is not supported says so."""

import hashlib
import json
import sys

import pytest
import torch

from models.clip import load as loading
from models.clip.blocks import cast_products
from models.clip.image_tower import build_visual_encoder
from models.clip.load import load_clip
from models.clip.open_clip import resolve, unsupported
from models.clip.text_tower import TextEncoder
from models.clip.tokenizer import tokenizer_of
from models.prompts import PromptLearner
from tests.conftest import assert_close, in_dtype
from tests.open_clip_models import CONTEXT, RESNET, make_config, write_folder

open_clip = pytest.importorskip("open_clip")

TEXTS = ["a photo of a dog.", "a sea lion", "X X X apple pie, the best of all."]
KINDS = {
    "GELU": make_config(),
    "QuickGELU": make_config(quick_gelu=True),
    "tanh GELU, other epsilons": make_config(
        {"act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-3}},
        {"act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-3}},
    ),
    "layer scale": make_config({"ls_init_value": 0.1}, {"ls_init_value": 0.2}),
    "no LayerNorm before the blocks": make_config({"no_ln_pre": True}),
    "LayerNorm behind the pooling": make_config({"final_ln_after_pool": True}),
    "wide and narrow MLPs": make_config({"mlp_ratio": 2.5}, {"mlp_ratio": 3.0}),
    "fixed positions": make_config({"pos_embed_type": "sin_cos_2d"}),
    "dropped patches in training": make_config({"patch_dropout": 0.5}),
    "a longer context": make_config(None, {"context_length": 90}),
    "a temperature in a list": make_config(nonscalar_logit_scale=True),
    "a ResNet": make_config(RESNET),
}


def compare(ours, theirs, tokenizer, size, texts=TEXTS):
    assert all(p.dtype == torch.float32 for p in ours.parameters())
    ours, theirs = (in_dtype(model, torch.float64) for model in (ours, theirs))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, 3, size, size, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        cls = build_visual_encoder(ours.visual)(images).cls
        text = TextEncoder(ours).encode_raw(texts)
        assert_close(cls, theirs.encode_image(images))
        assert_close(text, theirs.encode_text(tokenizer(texts)))
    assert ours.logit_scale == theirs.logit_scale
    assert ours.logit_scale.dim() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_features_equal_those_of_open_clip(tmp_path, kind):
    theirs = write_folder(tmp_path / "model", KINDS[kind])
    name = f"local-dir:{tmp_path / 'model'}"
    compare(load_clip(f"open_clip:{name}"), theirs, open_clip.get_tokenizer(name), 64)


@pytest.mark.parametrize(
    "name", [pytest.param("ViT-B-32-quickgelu", marks=pytest.mark.slow), "ViT-S-32", "RN50"]
)
def test_features_equal_those_of_open_clip_in_true_shapes(name):
    torch.manual_seed(0)
    ours = load_clip(f"open_clip:{name}", pretrained=False)
    torch.manual_seed(0)
    theirs = open_clip.create_model(name).eval()
    compare(ours, theirs, open_clip.get_tokenizer(name), 224, TEXTS[:1])


def test_towers_in_half_precision_normalise_in_float32(tmp_path):
    """As OpenAI's do; a LayerNorm of float32 weights does not take halves on every device."""
    theirs = write_folder(tmp_path / "model", KINDS["GELU"])
    ours = load_clip(f"open_clip:local-dir:{tmp_path / 'model'}")
    images = torch.randn(2, 3, 64, 64)
    visual, text = build_visual_encoder(ours.visual), TextEncoder(ours)
    for tower in (visual, text):
        cast_products(tower, torch.float16)
    norms = {type(m) for m in ours.modules() if isinstance(m, torch.nn.LayerNorm)}
    assert norms == {open_clip.transformer.LayerNormFp32}
    with torch.no_grad():
        half = {"rtol": 0.02, "atol": 0.02}
        torch.testing.assert_close(visual(images).cls.float(), theirs.encode_image(images), **half)
        ids = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'model'}")(TEXTS)
        torch.testing.assert_close(text.encode_raw(TEXTS), theirs.encode_text(ids), **half)


def test_openai_weights_give_the_same_features_in_both_packages(tmp_path, clip_model):
    torch.save(clip_model.state_dict(), tmp_path / "w.pt")
    vision = {"image_size": 32, "patch_size": 8, "head_width": 64}
    text = {"context_length": 77, "width": 64, "heads": 1, "layers": 2}
    config = make_config(vision, text, quick_gelu=True, embed_dim=32)
    write_folder(tmp_path / "model", config)
    name = f"open_clip:local-dir:{tmp_path / 'model'}"
    ours = load_clip(name, weights=str(tmp_path / "w.pt"))
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    ours, clip_model = (in_dtype(model, torch.float64) for model in (ours, clip_model))
    with torch.no_grad():
        cls = build_visual_encoder(ours.visual)(images).cls
        assert_close(cls, clip_model.encode_image(images))
        ids = loading.import_clip().tokenize(TEXTS)
        text = TextEncoder(ours).encode_raw(TEXTS)
        assert_close(text, clip_model.encode_text(ids))


# What is not supported

REFUSED = {
    "ViT-B-16-SigLIP": "an image tower of timm, .*not causal.*a bias of the logits",
    "coca_ViT-B-32": r"attentional pooling, a class token behind the text, a text decoder \(CoCa\)",
    "EVA02-B-16": "an image tower of timm;",
    "convnext_base": "an image tower of timm",
    "PE-Core-B-16": "an image tower of timm",
    "ViT-L-14-CLIPA": "pooling over patches, a text tower that is not causal, .*where the sentence",
    "roberta-ViT-B-32": "a text tower of transformers",
    "MobileCLIP-S1": "an image tower of timm, a text tower that is not causal",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_would_be_computed_wrong_is_refused_by_what_it_has(name):
    with pytest.raises(ValueError, match=rf"{name} is not supported .*it has {REFUSED[name]}") as e:
        load_clip(f"open_clip:{name}", pretrained=False)
    assert "supported are ViTs that read out the class token and CLIP's ResNets" in str(e.value)


@pytest.mark.parametrize(
    ("config", "phrase"),
    [
        (make_config({"qk_norm": True}), "qk_norm"),
        (make_config(None, {"scale_fc": True}), "scale_fc"),
        (make_config({"block_type": "custom"}), "block_type custom"),
        (make_config({"image_size": [64, 32]}), "pictures that are not square"),
        (make_config(None, {"proj_bias": True}), "a text projection with a bias"),
        (make_config(None, {"proj_type": "none"}), "no linear text projection"),
        (make_config(None, {"pool_type": "last"}), "a text feature that is not read where"),
        (make_config(init_logit_bias=-10), "a bias of the logits"),
        (
            make_config(None, {"tokenizer_kwargs": {"trust_remote_code": True}}),
            "options of its tokenizer that are not known to be safe",
        ),
    ],
)
def test_parts_that_are_not_supported(config, phrase):
    assert [met for met in unsupported(config) if phrase in met]
    assert len(unsupported(config)) == 1


def test_every_listed_model_that_is_not_refused_has_modules_that_are_read():
    """Kinds that a later open_clip adds to its list must be looked at."""
    names = [n for n in open_clip.list_models() if not unsupported(open_clip.get_model_config(n))]
    assert {n.partition("-")[0] for n in names} == {"ViT", "RN50", "RN101"} | {
        "RN50x4", "RN50x16", "RN50x64"
    }  # fmt: skip
    assert {"ViT-B-16", "ViT-L-14-336", "ViT-bigG-14", "RN50"} <= set(names)
    assert not [name for name in names if "SigLIP" in name or "CLIPA" in name]


# Names and weights


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ViT-B-61", "has no model 'ViT-B-61' .*do you mean ViT-B-16"),
        ("nonsense", "has no model 'nonsense' .*supported are ViTs"),
        (
            "ViT-B-16/laion3b",
            "has no weights 'laion3b' of ViT-B-16 .*it has: openai, .*laion2b_s34",
        ),
        ("ViT-B-16", r"names no weights .*\(--weights\), or a tag behind a slash: openai, "),
    ],
)
def test_a_wrong_name_says_what_there_is(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_clip(f"open_clip:{name}")


def test_names_are_understood_in_several_spellings():
    for spec in ("ViT-B-16/laion2b_s34b_b88k", "vit-b/16/laion2b_s34b_b88k"):
        source = resolve(spec)
        assert (source.name, source.tag) == ("ViT-B-16", "laion2b_s34b_b88k")
    assert resolve("ViT-B/16").tag == ""


def test_the_activation_is_that_of_the_weights():
    assert resolve("ViT-B-32/openai").config["quick_gelu"]
    assert not resolve("ViT-B-32/laion2b_s34b_b79k").config["quick_gelu"]
    assert resolve("ViT-L-14/laion2b_s32b_b82k").preprocess["mean"] == (0.5, 0.5, 0.5)


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ModuleNotFoundError, match=r"open_clip_torch .*requirements-open_clip\.txt"):
        load_clip("open_clip:ViT-B-32", pretrained=False)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache with one repository, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def fill(repository, files):
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        for part in ("blobs", "refs", "snapshots/1"):
            (folder / part).mkdir(parents=True)
        (folder / "refs" / "main").write_text("1")
        for name, content in files.items():
            blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
            blob.write_bytes(content)
            (folder / "snapshots" / "1" / name).symlink_to(blob)
        return folder / "blobs"

    return fill


def test_weights_come_from_the_hubs_cache_and_are_checked(tmp_path, hub):
    theirs = write_folder(tmp_path / "model", KINDS["GELU"])
    names = ("open_clip_config.json", "open_clip_model.safetensors")
    blobs = hub("some/where", {n: (tmp_path / "model" / n).read_bytes() for n in names})
    ours = load_clip("open_clip:hf-hub:some/where")
    compare(ours, theirs, open_clip.get_tokenizer(f"local-dir:{tmp_path / 'model'}"), 64)
    largest = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[-1] ^= 1
    largest.write_bytes(content)
    with pytest.raises(ValueError, match=r"has SHA-256 .* the same command fetches it anew"):
        load_clip("open_clip:hf-hub:some/where")


def test_weights_that_cannot_be_fetched_say_what_to_do(hub):
    for name in ("ViT-B-16/laion2b_s34b_b88k", "hf-hub:some/where"):
        with pytest.raises(FileNotFoundError, match=r"open_clip could not fetch .*\(--weights\)"):
            load_clip(f"open_clip:{name}")


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot be read \(No such .*\); name a folder"):
        load_clip(f"open_clip:local-dir:{tmp_path}")
    (tmp_path / "open_clip_config.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a config of open_clip's"):
        load_clip(f"open_clip:local-dir:{tmp_path}")
    said = {"model_cfg": make_config({"colour": 1})}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(said))
    with pytest.raises(FileNotFoundError, match=r"holds no open_clip_model\..* \(--weights\)"):
        load_clip(f"open_clip:local-dir:{tmp_path}")
    with pytest.raises(ValueError, match=r"is not understood by the installed open_clip .*colour"):
        load_clip(f"open_clip:local-dir:{tmp_path}", pretrained=False)


def test_loading_a_file_draws_nothing_from_the_global_generator(tmp_path):
    write_folder(tmp_path / "model", KINDS["GELU"])
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_clip(f"open_clip:local-dir:{tmp_path / 'model'}")
    assert torch.equal(torch.rand(1), expected)


# Tokenizers


@pytest.fixture
def short(tmp_path):
    write_folder(tmp_path / "model", KINDS["GELU"])
    return load_clip(f"open_clip:local-dir:{tmp_path / 'model'}")


def test_sentences_are_cut_to_the_models_own_context(short, caplog):
    tokens = tokenizer_of(short).tokenize(["word " * 30, "short"])
    assert tokens.ids.shape == (2, CONTEXT)
    assert tokens.eos.tolist() == [CONTEXT - 1, 2]
    assert "cut to 20 tokens" in caplog.text
    with pytest.raises(ValueError, match=r"must lie in 1\.\.16, got 17"):
        PromptLearner(["a"], short.token_embedding, n_ctx=17, tokenizer=tokenizer_of(short))


def words_tokenizer(folder, *, start, eos_first=False):
    """A tokenizer of whole words in transformers' format; marks </s> behind, perhaps <s> before."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [
        "<pad>",
        "<unk>",
        "</s>",
        "<s>",
        *["a", "photo", "of", "X", "big", "cat", "dog", "apple", "pie", "oak", "tree", "."],
    ]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    single = "</s> $A" if eos_first else "<s> $A </s>" if start else "$A </s>"
    marks = [("<s>", 3), ("</s>", 2)]
    inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=marks)
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>")
    fast.save_pretrained(folder)
    return len(words)


def foreign(folder, **kind):
    """A model whose tokenizer is another one, and open_clip's own model and tokenizer."""
    pytest.importorskip("transformers")
    folder.mkdir()
    count = words_tokenizer(folder, **kind)
    text = {"vocab_size": count, "pool_type": "eos", "eos_id": 2, "hf_tokenizer_name": "here"}
    theirs = write_folder(folder, make_config(None, text))
    name = f"local-dir:{folder}"
    return load_clip(f"open_clip:{name}"), theirs, open_clip.get_tokenizer(name)


NAMES = ["big_cat", "dog", "apple pie", "oak tree"]


@pytest.mark.parametrize("start", [True, False])
def test_a_tokenizer_with_and_without_a_mark_at_the_beginning(tmp_path, start):
    ours, theirs, tokenizer = foreign(tmp_path / "m", start=start)
    assert tokenizer_of(ours).num_start == start
    texts = ["a photo of a dog.", "big cat", "dog"]
    compare(ours, theirs, tokenizer, 64, texts)


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("csc", [False, True])
@pytest.mark.parametrize("names", [NAMES, ["big_cat", "big oak tree"]])
def test_prompts_of_another_tokenizer_stand_in_their_order(tmp_path, start, position, csc, names):
    ours, theirs, tokenizer = foreign(tmp_path / "m", start=start)
    ours, theirs = (in_dtype(model, torch.float64) for model in (ours, theirs))
    torch.manual_seed(0)
    learner = PromptLearner(
        names,
        ours.token_embedding,
        n_ctx=3,
        csc=csc,
        class_token_position=position,
        tokenizer=tokenizer_of(ours),
    )
    found, mask = TextEncoder(ours)(learner())[0], theirs.attn_mask.double()
    for i, name in enumerate(names):
        ids = tokenizer([f"{name.replace('_', ' ')}."])[0].tolist()
        end = ids.index(2)
        rows = theirs.token_embedding(torch.tensor(ids[: end + 1]))
        ctx = learner.ctx[i] if csc else learner.ctx
        before = {"end": 3, "middle": 1, "front": 0}[position]
        mark, word, rest = rows[:start], rows[start:-2], rows[-2:]
        row = torch.cat([mark, ctx[:before], word, ctx[before:], rest])
        x = row + theirs.positional_embedding[: len(row)]
        x = theirs.transformer(x[None], attn_mask=mask[: len(row), : len(row)])
        expected = theirs.ln_final(x)[0, -1] @ theirs.text_projection
        assert_close(found[i], expected)


def test_a_context_of_words_starts_from_them(tmp_path):
    ours, _, _ = foreign(tmp_path / "m", start=False)
    tokenizer = tokenizer_of(ours)
    learner = PromptLearner(
        NAMES, ours.token_embedding, ctx_init="a photo of a", tokenizer=tokenizer
    )
    ids = torch.tensor(tokenizer.words("a photo of a"))
    assert torch.equal(learner.ctx, ours.token_embedding(ids))
    assert learner.places == slice(0, 4)


def test_a_class_name_with_a_mark_of_the_backbones_own_is_refused(tmp_path):
    from runs.backbone import check_class_names

    ours, _, _ = foreign(tmp_path / "m", start=True)
    with pytest.raises(ValueError, match=r"made for class 1 \('dog </s> cat' holds a mark"):
        check_class_names(["dog", "dog </s> cat", "oak tree"], ours)
    assert check_class_names(["dog </s> cat"]) == ["dog </s> cat"]  # no mark of OpenAI's


def test_a_tokenizer_that_ends_sentences_elsewhere_is_refused(tmp_path):
    with pytest.raises(ValueError, match="this tokenizer does not write the tokens of 'a photo'"):
        foreign(tmp_path / "m", start=False, eos_first=True)


def test_a_tokenizer_with_code_is_refused(tmp_path, monkeypatch):
    import builtins

    monkeypatch.setattr(builtins, "input", lambda *_: "y")  # nobody may be asked
    foreign(tmp_path / "m", start=True)
    said = json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())
    said |= {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps(said))
    trace = tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w')\n\n\nclass Evil:\n    pass\n"
    (tmp_path / "m" / "evil.py").write_text(code)
    with pytest.raises(FileNotFoundError, match=r"the tokenizer of .* cannot be loaded"):
        load_clip(f"open_clip:local-dir:{tmp_path / 'm'}")
    assert not trace.exists()


def test_a_tokenizer_with_more_tokens_than_the_text_tower_is_refused(tmp_path):
    write_folder(tmp_path / "model", make_config(None, {"vocab_size": 1000}))
    with pytest.raises(ValueError, match="has 49,408 tokens, and its text tower 1,000; take"):
        load_clip(f"open_clip:local-dir:{tmp_path / 'model'}")


def test_a_missing_transformers_says_what_to_install(tmp_path, monkeypatch):
    text = {"hf_tokenizer_name": "here", "pool_type": "eos"}
    write_folder(tmp_path / "model", make_config(None, text))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs the package transformers .*open_clip\.txt"
    ):
        load_clip(f"open_clip:local-dir:{tmp_path / 'model'}")
