"""Models of open_clip -> the modules that this project's encoders read.

open_clip's own towers carry the names of OpenAI's modules. What differs is settled here: layer
scale goes into the linear layers before it, LayerNorms are float32 inside as OpenAI's are, and the
model brings its tokenizer and what its weights expect of pictures. All else (GELU, another width of
the MLP, no LayerNorm before the blocks) is in the modules, and the encoders use them as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.open_clip_names import HINT, Source, find_weights, import_open_clip, resolve
from models.tokenizer import Tokenizer
from models.weights import put_weights, read_weights

logger = logging.getLogger(__name__)


def load_open_clip(
    spec: str, *, pretrained: bool = True, trust: bool = False, weights: str = ""
) -> nn.Module:
    """Load a model of open_clip's, float32, on the CPU, in evaluation mode.

    Args:
        spec: its name, see `models.open_clip_names`.
        pretrained: False gives random weights, from torch's global generator.
        trust: see `models.weights`.
        weights: file to load instead of the published one.

    Returns:
        The model, with `tokenizer` (see `models.tokenizer`), `visual.input_resolution` and
        `preprocess` (mean, std, resize_mode; None where unknown or weights are random).

    Raises:
        ValueError: unknown, not supported, or weights that do not fit.
        FileNotFoundError: weights or config cannot be found or fetched.
        ModuleNotFoundError: open_clip is missing, or transformers where its tokenizer needs it.
    """
    source = resolve(spec)
    model: Any  # it gets attributes of its own
    if not pretrained and not weights:
        model = build(source)
    else:
        path = Path(weights).expanduser() if weights else find_weights(source)
        table = read_weights(path, trust=trust)
        with torch.random.fork_rng(devices=[]):  # draws what is overwritten at once
            model = build(source)
        put_weights(model, table, path, f"open_clip:{spec}")
    adapt(model)
    model.tokenizer = tokenizer_for(source, model)
    model.preprocess = source.preprocess if pretrained or weights else None
    return model.eval()


def build(source: Source) -> nn.Module:
    """The model with random weights.

    Raises:
        ValueError: the config has keys that this release of open_clip does not know.
    """
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
def adapt(model: Any) -> nn.Module:
    """Bring a model of open_clip's into the layout of `clip.model.CLIP`, in place.

    Features stay the same; layer scale to rounding.
    """
    for tower in (model, model.visual):
        for block in getattr(getattr(tower, "transformer", None), "resblocks", ()):
            block.ls_1 = fold_scale(block.ls_1, block.attn.out_proj)
            block.ls_2 = fold_scale(block.ls_2, block.mlp.c_proj)
    size = model.visual.image_size  # of a ViT a pair, of a ResNet a number
    model.visual.input_resolution = size[0] if isinstance(size, tuple) else size
    return model


def fold_scale(scale: nn.Module, linear: nn.Linear) -> nn.Module:
    """Put a layer scale behind a linear layer into the layer; what stands in its place."""
    if isinstance(scale, nn.Identity):
        return scale
    gamma: Any = scale.gamma
    linear.weight.mul_(gamma.unsqueeze(1))
    linear.bias.mul_(gamma)
    return nn.Identity()


def tokenizer_for(source: Source, model: Any) -> Tokenizer:
    """The tokenizer that the model was trained with.

    Raises:
        ModuleNotFoundError: it needs transformers.
        FileNotFoundError: it cannot be fetched.
        ValueError: it has more tokens than the model, or is of a kind that is not supported.
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
            f"the tokenizer of {source.name} has {count:,} tokens, and its text tower {known:,}"
        )
    words = own.encode if inner is None else _words_of(own)
    end = model.text_eos_id if model.text_pool_type == "eos" else None

    def encode(texts: list[str], length: int) -> Tensor:
        return own(texts, context_length=length)

    return Tokenizer(encode, words, model.context_length, end)


def _words_of(own: Any) -> Callable[[str], list[int]]:
    """How a tokenizer of transformers writes words, without its marks."""

    def words(text: str) -> list[int]:
        return own.tokenizer(own.clean_fn(text), add_special_tokens=False).input_ids

    return words
