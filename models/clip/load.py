"""Load CLIP: the embedded one, OpenAI's, or through `models.clip.open_clip` one of open_clip's."""

from pathlib import Path

import torch
from torch import nn

from models.clip.fetch import digest_of, fetch
from models.clip.openai import VOCABULARY, import_clip
from models.clip.weights import open_published, put_weights, read_weights

TINY = "tiny-emoji"
TINY_CLIP = Path(__file__).parents[2] / "assets" / "tiny_clip.pt"
TINY_DIGEST = "85ab834541d52c775a9ff65c2ae7c0d19e0625b4254af9a30b8ecf0b7e038f91"  # its SHA-256
CACHE = Path("~/.cache/clip")  # where OpenAI's package keeps weights
OPEN_CLIP = "open_clip:"  # what the names of open_clip's models begin with here
# (image size, vision layers, vision width, patch, joint width, text width, text layers)
_SHAPES = {
    TINY: (64, 4, 128, 8, 128, 128, 4),
    "RN50": (224, (3, 4, 6, 3), 64, None, 1024, 512, 12),
    "RN101": (224, (3, 4, 23, 3), 64, None, 512, 512, 12),
    "RN50x4": (288, (4, 6, 10, 6), 80, None, 640, 640, 12),
    "RN50x16": (384, (6, 8, 18, 8), 96, None, 768, 768, 12),
    "RN50x64": (448, (3, 15, 36, 10), 128, None, 1024, 1024, 12),
    "ViT-B/32": (224, 12, 768, 32, 512, 512, 12),
    "ViT-B/16": (224, 12, 768, 16, 512, 512, 12),
    "ViT-L/14": (224, 24, 1024, 14, 768, 768, 12),
    "ViT-L/14@336px": (336, 24, 1024, 14, 768, 768, 12),
}


def available_backbones() -> list[str]:
    """Names that `load_clip` accepts, beside those of open_clip."""
    return [TINY, *import_clip().available_models()]


def load_clip(
    name: str, *, pretrained: bool = True, trust: bool = False, weights: str = ""
) -> nn.Module:
    """Load CLIP, float32, on the CPU, in evaluation mode.

    `name` is "tiny-emoji" (embedded), one of OpenAI's, as ViT-B/16 ("ViT-B-16" is understood), or
    "open_clip:" and one of open_clip's (`models.clip.open_clip`). `pretrained=False` gives random
    weights, from torch's global generator. `trust` loads TorchScript, which can run code, even if
    its SHA-256 is not the published one. `weights` is a file of weights (`models.clip.weights`).
    Raises ValueError for a name, model or weights that do not fit or are not the published ones,
    FileNotFoundError for weights that cannot be found or fetched, and ModuleNotFoundError where
    `clip` or open_clip is missing.
    """
    if name.startswith(OPEN_CLIP):
        from models.clip.open_clip import load_open_clip  # the package is optional

        spec = name.removeprefix(OPEN_CLIP)
        return load_open_clip(spec, pretrained=pretrained, trust=trust, weights=weights)
    names = {entry.replace("/", "-").lower(): entry for entry in available_backbones()}
    known = names.get(name.replace("/", "-").lower())
    if known is None:
        raise ValueError(
            f"unknown backbone {name!r} (MODEL.BACKBONE.NAME); "
            f"available: {', '.join(names.values())}, and those of open_clip, as "
            f"{OPEN_CLIP}ViT-B-16/laion2b_s34b_b88k"
        )
    if not weights and not pretrained:
        return random_clip(known)
    if weights:
        path = Path(weights).expanduser()
        table = read_weights(path, trust=trust)
        with torch.random.fork_rng(devices=[]):  # draws what is overwritten at once
            model = random_clip(known)
        return put_weights(model, table, path, known)
    if known == TINY:
        return load_tiny_clip()
    return open_published(fetch_weights(import_clip().clip._MODELS[known], trust=trust))


def load_tiny_clip(path: Path = TINY_CLIP, digest: str = TINY_DIGEST) -> nn.Module:
    """The embedded CLIP. Rows of the vocabulary that were never trained come back as zeros.

    Raises FileNotFoundError if it is missing, ValueError if its SHA-256 is not `digest` ("": any).
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"the embedded CLIP is missing at {path}; restore it from the repository "
            "or make it anew with lab/pretrain_tiny_clip.py"
        )
    if digest and digest_of(path) != digest:
        raise ValueError(
            f"{path} is not the embedded CLIP of this project, or is damaged: its SHA-256 is "
            "another; restore it from the repository, or load a file of your own with --weights"
        )
    table = read_weights(path)
    import_clip()
    from clip.model import build_model

    model = build_model(dict(table)).float().eval()
    return put_weights(model, table, path, TINY)  # build_model has rounded them


def fetch_weights(url: str, *, trust: bool = False) -> Path:
    """The file that OpenAI's package keeps for an address, fetched if it is not there.

    The address ends in SHA-256 and name. Raises ValueError if the SHA-256 is another, unless
    `trust`, and FileNotFoundError if the fetch fails.
    """
    published, file = url.split("/")[-2:]
    path = CACHE.expanduser() / file
    if not path.is_file():
        try:
            fetch(url, path, published, "sha256")
        except OSError as error:
            raise FileNotFoundError(
                f"{file} could not be fetched. Give the same command again, or download {url} "
                f"and put the file into {path.parent}. {error}"
            ) from error
    elif not trust and (found := digest_of(path)) != published:
        raise ValueError(
            f"{path} has SHA-256 {found[:12]}..., and the published file has {published[:12]}...; "
            "it is not loaded, because TorchScript can run code: remove it and it is fetched anew, "
            "or pass --trust-weights if you know who made it"
        )
    return path


def random_clip(name: str) -> nn.Module:
    """CLIP with random weights: for shapes, parity and speed, never for accuracy."""
    if name not in _SHAPES:
        raise ValueError(f"no random weights for {name!r}; available: {', '.join(_SHAPES)}")
    import_clip()
    from clip.model import CLIP

    size, layers, width, patch, joint, text_width, text_layers = _SHAPES[name]
    heads = text_width // 64
    model = CLIP(joint, size, layers, width, patch, 77, VOCABULARY, text_width, heads, text_layers)
    return model.float().eval()
