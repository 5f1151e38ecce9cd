"""Load a model of open_clip's: its config, weights and tokenizer, in the layout of OpenAI's CLIP.

A name is MODEL/TAG, as ViT-B-16/laion2b_s34b_b88k; MODEL alone where the weights are a file;
hf-hub:ORGANISATION/REPOSITORY; or local-dir:FOLDER with open_clip_config.json and weights.
"""

import difflib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from models.clip.fetch import digest_of
from models.clip.tokenizer import Tokenizer
from models.clip.weights import put_weights, read_weights

HINT = "install it with: pip install -r requirements-open_clip.txt"
SUPPORTED = (
    "supported are ViTs that read out the class token and CLIP's ResNets, beside a causal text "
    "tower, as ViT-B-32, ViT-B-16, ViT-L-14, ViT-H-14, ViT-g-14, ViT-bigG-14, RN50 and RN101"
)
HUB, FOLDER = "hf-hub:", "local-dir:"
CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# Options of a tokenizer that a config may set; others could run code, or draw at random.
TOKENIZER_OPTIONS = {"clean", "strip_sep_token", "language"}
EXTRAS = (
    "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc",
)


def import_open_clip() -> ModuleType:
    """The package open_clip, or ModuleNotFoundError if it is missing or broken."""
    try:
        import open_clip
    except ImportError as error:
        raise ModuleNotFoundError(
            f"a backbone of open_clip needs the package open_clip_torch ({error}); {HINT}"
        ) from error
    return open_clip


class Source(NamedTuple):
    """Where a model comes from."""

    name: str  # as open_clip spells it, without the tag
    config: dict[str, Any]  # embed_dim, vision_cfg, text_cfg, quick_gelu, ...
    tag: str = ""
    preprocess: dict[str, Any] | None = None  # mean, std, resize_mode in training, where known


def resolve(spec: str) -> Source:
    """Find a model by its name.

    Raises ValueError if there is none, its weights are unknown or it is not supported, and
    FileNotFoundError if its config cannot be read or fetched.
    """
    source = _from_place(spec) if spec.startswith((HUB, FOLDER)) else _from_list(spec)
    if reasons := unsupported(source.config):
        raise ValueError(
            f"open_clip's {source.name} is not supported (MODEL.BACKBONE.NAME): it has "
            f"{', '.join(reasons)}; {SUPPORTED}"
        )
    return source


def _from_list(spec: str) -> Source:
    """A model that open_clip itself lists."""
    open_clip = import_open_clip()
    names = {name.lower(): name for name in open_clip.list_models()}
    head, _, tag = spec.rpartition("/")
    if name := names.get(spec.replace("/", "-").lower(), ""):
        tag = ""
    elif not (name := names.get(head.replace("/", "-").lower(), "")):
        near = difflib.get_close_matches((head or spec).lower(), names, n=3)
        hint = f"; do you mean {' or '.join(names[n] for n in near)}?" if near else f"; {SUPPORTED}"
        raise ValueError(f"open_clip has no model {spec!r} (MODEL.BACKBONE.NAME){hint}")
    config = open_clip.get_model_config(name)
    if not tag:
        return Source(name, config)
    published = open_clip.get_pretrained_cfg(name, tag)
    if not published:
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise ValueError(
            f"open_clip has no weights {tag!r} of {name} (MODEL.BACKBONE.NAME); "
            f"it has: {', '.join(tags) or 'none'}"
        )
    # What the weights were trained with is a fact of the weights, whatever the model's name says.
    config["quick_gelu"] = published.get("quick_gelu", False)
    return Source(name, config, tag, published)


def _from_place(spec: str) -> Source:
    """A model of the hub or of a folder."""
    if spec.startswith(HUB):
        path = _from_hub(spec, CONFIG)
    else:
        path = Path(spec.removeprefix(FOLDER)).expanduser() / CONFIG
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        config = said["model_cfg"]
        known = isinstance(config["vision_cfg"], dict) and isinstance(config["text_cfg"], dict)
    except OSError as error:
        raise FileNotFoundError(
            f"{path} cannot be read ({error.strerror}); name a folder with it and weights "
            "(MODEL.BACKBONE.NAME)"
        ) from error
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ValueError(f"{path} is not a config of open_clip's: it describes no model_cfg")
    return Source(spec, config, "", said.get("preprocess_cfg"))


def unsupported(config: Mapping[str, Any]) -> list[str]:
    """Why the encoders of this project cannot read a model, a phrase each."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    reasons = {
        "an image tower of timm": vision.get("timm_model_name"),
        "attentional pooling": vision.get("attentional_pool"),
        "pooling over patches": vision.get("pool_type", "tok") != "tok",
        "pictures that are not square": not isinstance(vision.get("image_size", 1), int),
        "a text tower of transformers": text.get("hf_model_name"),
        "a class token behind the text": text.get("embed_cls"),
        "a text tower that is not causal": text.get("no_causal_mask"),
        "a text feature that is not read where the sentence ends": (
            text.get("pool_type", "argmax") not in ("argmax", "eos")
        ),
        "no linear text projection": text.get("proj_type", "linear") != "linear",
        "a text projection with a bias": text.get("proj_bias"),
        "a text decoder (CoCa)": "multimodal_cfg" in config,
        "a bias of the logits (SigLIP)": config.get("init_logit_bias") is not None,
        "a tokenizer of another mode": text.get("tokenizer_mode"),
        "options of its tokenizer that are not known to be safe": (
            set(text.get("tokenizer_kwargs") or {}) - TOKENIZER_OPTIONS
        ),
    }
    custom = [key for tower in (vision, text) for key in EXTRAS if tower.get(key)]
    custom += [f"block_type {t['block_type']}" for t in (vision, text) if t.get("block_type")]
    return [phrase for phrase, is_so in reasons.items() if is_so] + custom


def find_weights(source: Source) -> Path:
    """The file of a model's weights, from open_clip's cache, fetched if it is not there.

    Raises ValueError if none are named or the file is damaged, FileNotFoundError if there is none.
    """
    if source.name.startswith(HUB):
        return _from_hub(source.name)
    if source.name.startswith(FOLDER):
        folder = Path(source.name.removeprefix(FOLDER)).expanduser()
        for name in WEIGHTS:
            if (folder / name).is_file():
                return folder / name
        raise FileNotFoundError(
            f"{folder} holds no {' or '.join(WEIGHTS)}; give a file of weights (--weights)"
        )
    open_clip = import_open_clip()
    if not source.tag:
        tags = open_clip.list_pretrained_tags_by_model(source.name)
        raise ValueError(
            f"open_clip:{source.name} names no weights (MODEL.BACKBONE.NAME): give a file "
            f"(--weights), or a tag behind a slash: {', '.join(tags) or 'it has none'}"
        )
    spec = f"{source.name}/{source.tag}"
    return _fetched(spec, open_clip.download_pretrained, source.preprocess)


def _from_hub(spec: str, file: str | None = None) -> Path:
    import_open_clip()
    from open_clip.pretrained import download_pretrained_from_hf

    repository = spec.removeprefix(HUB)
    return _fetched(repository, partial(download_pretrained_from_hf, filename=file), repository)


def _fetched(what: str, download: Callable[[Any], str], source: Any) -> Path:
    """What open_clip downloads, checked: the hub's cache names large files by their SHA-256."""
    try:
        path = Path(download(source))
    except (OSError, ValueError, RuntimeError) as error:
        raise FileNotFoundError(
            f"open_clip could not fetch {what} ({' '.join(str(error).split())}); give the same "
            "command again, which goes on where it broke off, or a local file (--weights)"
        ) from error
    name = path.resolve().name
    if len(name) == 64 and (found := digest_of(path)) != name:
        raise ValueError(
            f"{path} has SHA-256 {found[:12]}..., and the published file has {name[:12]}...; "
            "remove it, and the same command fetches it anew"
        )
    return path


def load_open_clip(
    spec: str, *, pretrained: bool = True, trust: bool = False, weights: str = ""
) -> nn.Module:
    """Load a model of open_clip's; arguments and errors as of `models.clip.load.load_clip`.

    It has also `tokenizer` (see `models.clip.tokenizer`), `visual.input_resolution` and
    `preprocess` (mean, std, resize_mode; None where unknown or weights are random).
    """
    source = resolve(spec)
    model: Any  # it gets attributes of its own
    if not pretrained and not weights:
        model = _build(source)
    else:
        path = Path(weights).expanduser() if weights else find_weights(source)
        table = read_weights(path, trust=trust)
        with torch.random.fork_rng(devices=[]):  # draws what is overwritten at once
            model = _build(source)
        put_weights(model, table, path, f"open_clip:{spec}")
    _adapt(model)
    model.tokenizer = _tokenizer_for(source, model)
    model.preprocess = source.preprocess if pretrained or weights else None
    return model.eval()


def _build(source: Source) -> nn.Module:
    """The model with random weights; ValueError if open_clip does not know keys of the config."""
    open_clip = import_open_clip()
    config = {key: value for key, value in source.config.items() if key != "custom_text"}
    try:
        # The dtype chooses the LayerNorm that is float32 inside; all weights stay float32.
        model = open_clip.CLIP(**config, cast_dtype=torch.float16)
    except TypeError as error:
        raise ValueError(
            f"the config of {source.name} is not understood by the installed open_clip ({error})"
        ) from error
    model.logit_scale.data = model.logit_scale.data.reshape(())  # in some a list of one
    return model


@torch.no_grad()
def _adapt(model: Any) -> None:
    """Bring a model into the layout of `clip.model.CLIP`, in place; features stay, to rounding."""
    for tower in (model, model.visual):
        for block in getattr(getattr(tower, "transformer", None), "resblocks", ()):
            for name, linear in (("ls_1", block.attn.out_proj), ("ls_2", block.mlp.c_proj)):
                scale = getattr(block, name)
                if not isinstance(scale, nn.Identity):
                    linear.weight.mul_(scale.gamma.unsqueeze(1))
                    linear.bias.mul_(scale.gamma)
                    setattr(block, name, nn.Identity())
    size = model.visual.image_size  # of a ViT a pair, of a ResNet a number
    model.visual.input_resolution = size[0] if isinstance(size, tuple) else size


def _tokenizer_for(source: Source, model: Any) -> Tokenizer:
    """The tokenizer that the model was trained with.

    Raises ModuleNotFoundError if it needs transformers, FileNotFoundError if it cannot be fetched,
    and ValueError if it has more tokens than the model, or is of a kind that is not supported.
    """
    open_clip = import_open_clip()
    foreign = source.config["text_cfg"].get("hf_tokenizer_name")
    options = {"trust_remote_code": False} if foreign else {}  # nobody is asked, either
    try:
        own = open_clip.get_tokenizer(source.name, **options)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"the tokenizer of {source.name} needs the package transformers ({error}); {HINT}"
        ) from error
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"the tokenizer of {source.name} cannot be loaded ({' '.join(str(error).split())})"
        ) from error
    inner = getattr(own, "tokenizer", None)
    count, known = own.vocab_size if inner is None else len(inner), model.vocab_size
    if count > known:
        raise ValueError(
            f"the tokenizer of {source.name} has {count:,} tokens, and its text tower {known:,}; "
            "take another backbone (MODEL.BACKBONE.NAME)"
        )
    end = model.text_eos_id if model.text_pool_type == "eos" else None

    def words(text: str) -> list[int]:
        if inner is None:
            return own.encode(text)
        return inner(own.clean_fn(text), add_special_tokens=False).input_ids

    return Tokenizer(own, words, model.context_length, end)
