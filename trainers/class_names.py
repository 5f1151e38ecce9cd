"""Class names that a prompt can hold: refused or warned of before CLIP is asked."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from models.tokenizer import count_tokens, normalise_name, tokenize

logger = logging.getLogger(__name__)

ROOM = 4096  # tokens, more than any name has; longer ones are cut anyway, with a warning
LONG = 60  # characters of a name that a sentence quotes


def checked(names: Iterable[str]) -> list[str]:
    """The names, if each says something; a warning names those that several classes share.

    Raises:
        ValueError: names every class whose name is empty, or that CLIP's tokens cannot hold.
    """
    names = list(names)
    wrong = [
        f"class {label} ({fault})" for label, name in enumerate(names) if (fault := flaw(name))
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


def flaw(name: str) -> str:
    """What is wrong with a name; "" if nothing is."""
    quoted = repr(name if len(name) <= LONG else name[:LONG] + "...")
    try:
        name.encode()
        length = count_tokens(normalise_name(name))
    except UnicodeEncodeError:
        return f"{quoted} holds half a character"
    if not length:
        return f"its name {quoted} is empty"
    # The end of the sentence is the first token with the highest number: none may come before it.
    if length < ROOM - 2 and int(tokenize([normalise_name(name)], ROOM).eos) != length + 1:
        return f"{quoted} holds a mark of CLIP's own, as <|endoftext|>"
    return ""
