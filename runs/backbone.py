"""Load the CLIP that a config names, and check that it fits the pictures and class names."""

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import nn
from yacs.config import CfgNode

from models.class_names import folded
from models.clip.load import load_clip
from models.clip.tokenizer import Tokenizer, clip_tokenizer, normalise_name, tokenizer_of

logger = logging.getLogger(__name__)

ROOM = 4096  # tokens, more than any name has; longer ones are cut anyway, with a warning


def check_class_names(names: Iterable[str], clip: nn.Module | None = None) -> list[str]:
    """The class names; ValueError if one is empty, or `clip`'s tokenizer cannot write it."""
    names = list(names)
    tokenizer = clip_tokenizer() if clip is None else tokenizer_of(clip)
    faults = [(label, problem_of_name(name, tokenizer)) for label, name in enumerate(names)]
    if wrong := [f"class {label} ({fault})" for label, fault in faults if fault]:
        advice = "mend the names in the split file or the class list of the data set"
        raise ValueError(f"no prompt can be made for {'; '.join(wrong)}; {advice}")
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(folded(name), normalise_name(name))
    counts = Counter(map(folded, names))
    if shared := ", ".join(name for key, name in first.items() if counts[key] > 1):
        warning = "several classes have one name, so their prompts cannot be told apart: %s"
        logger.warning(warning, shared)
    return names


def problem_of_name(name: str, tokenizer: Tokenizer) -> str:
    """What is wrong with a name, or ""."""
    quoted = repr(name[:60] + "..." * (len(name) > 60))
    try:
        name.encode()
        length = tokenizer.count(normalise_name(name))
    except UnicodeEncodeError:
        return f"{quoted} holds half a character"
    if not length:
        return f"its name {quoted} is empty"
    # A sentence ends at the first mark of its end: none may come before it.
    end = tokenizer.num_start + length
    if end < ROOM - 1 and int(tokenizer.tokenize([normalise_name(name)], ROOM).eos) != end:
        return f"{quoted} holds a mark of CLIP's own, as <|endoftext|>"
    return ""


def load_backbone(settings: CfgNode, pictures: CfgNode, name: str = "") -> nn.Module:
    """Load CLIP by the node MODEL, or another backbone by `name`, as a teacher; check INPUT."""
    backbone, weights = settings.BACKBONE, "" if name else settings.BACKBONE.WEIGHTS
    name = name or backbone.NAME
    if weights and not backbone.PRETRAINED:
        asked = f"asks for random weights, and --weights for {weights}"
        raise ValueError(f"MODEL.BACKBONE.PRETRAINED False {asked}; leave one of them out")
    trust = settings.TRUST_WEIGHTS
    clip: Any = load_clip(name, pretrained=backbone.PRETRAINED, trust=trust, weights=weights)
    size = clip.visual.input_resolution
    if tuple(pictures.SIZE) != (size, size):
        raise ValueError(
            f"{name} sees pictures of {size} x {size}, and INPUT.SIZE is {tuple(pictures.SIZE)}: "
            f'add INPUT.SIZE "({size}, {size})"'
        )
    require_normalisation(clip, pictures, name, settings.ALLOW_MISMATCH)
    return clip


def require_normalisation(clip: Any, pictures: CfgNode, name: str, allow: bool) -> None:
    """Refuse pictures of another normalisation than the weights name (OpenAI's name none)."""
    known = getattr(clip, "preprocess", None) or {}
    if known.get("resize_mode") == "squash":
        logger.warning("%s was trained on pictures squashed to a square; here they are cut", name)
    if "mean" not in known or "std" not in known:
        return
    wanted = [[round(float(v), 6) for v in known[key]] for key in ("mean", "std")]
    given = [[round(float(v), 6) for v in v] for v in (pictures.PIXEL_MEAN, pictures.PIXEL_STD)]
    if wanted == given:
        return
    sentence = (
        f"the weights of {name} were trained on pictures of mean {wanted[0]} and standard "
        f"deviation {wanted[1]}, and this run has {given[0]} and {given[1]}"
    )
    if not allow:
        raise ValueError(
            f'{sentence}: add INPUT.PIXEL_MEAN "{wanted[0]}" INPUT.PIXEL_STD "{wanted[1]}", or '
            "--allow-mismatch if that is meant"
        )
    logger.warning("%s; they are used all the same (--allow-mismatch)", sentence)
