"""OpenAI's package `clip`, whose modules and tokenizer are used as they are."""

import warnings
from types import ModuleType

VOCABULARY = 49408  # byte-pair tokens of CLIP
INSTALL_HINT = (
    "install it with: pip install clip-anytorch 'setuptools<81' packaging "
    "(or: pip install git+https://github.com/openai/CLIP.git)"
)


def import_clip() -> ModuleType:
    """OpenAI's `clip` package, or ModuleNotFoundError if it is missing, broken or another one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pkg_resources announces its own end
            import clip
    except (ImportError, AttributeError) as error:
        raise ModuleNotFoundError(
            f"OpenAI's package 'clip' cannot be imported ({error}); {INSTALL_HINT}"
        ) from error
    if not hasattr(clip, "tokenize") or not hasattr(clip, "load"):
        raise ModuleNotFoundError(
            f"the package 'clip' at {clip.__file__} is not OpenAI's; {INSTALL_HINT}"
        )
    return clip
