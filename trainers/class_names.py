"""Class names that a prompt can hold: refused or warned of before text is encoded."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from torch import nn

from models.tokenizer import Tokenizer, clip_tokenizer, normalise_name, tokenizer_of

logger = logging.getLogger(__name__)

ROOM = 4096  # tokens, more than any name has; longer ones are cut anyway, with a warning
LONG = 60  # characters of a name that a sentence quotes


def checked(names: Iterable[str], clip: nn.Module | None = None) -> list[str]:
    """The names, if each says something; a warning names those that several classes share.

    Args:
        names: by label.
        clip: the backbone, whose tokenizer they must fit; OpenAI's if there is none.

    Raises:
        ValueError: names every class whose name is empty, or that the tokens cannot hold.
    """
    names = list(names)
    tokenizer = clip_tokenizer() if clip is None else tokenizer_of(clip)
    wrong = [
        f"class {label} ({fault})"
        for label, name in enumerate(names)
        if (fault := flaw(name, tokenizer))
    ]
    if wrong:
        raise ValueError(
            f"no prompt can be made for {'; '.join(wrong)}; mend the names in the split file or "
            "the class list of the data set"
        )
    shared = [name for name, count in Counter(map(normalise_name, names)).items() if count > 1]
    if shared:
        logger.warning(
            "several classes have one name, so their prompts cannot be told apart: %s",
            ", ".join(shared),
        )
    return names


def flaw(name: str, tokenizer: Tokenizer) -> str:
    """What is wrong with a name; "" if nothing is."""
    quoted = repr(name if len(name) <= LONG else name[:LONG] + "...")
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
