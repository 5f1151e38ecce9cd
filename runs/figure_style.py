"""Save matplotlib figures: no screen needed, every text as it stands, fonts of many scripts."""

from __future__ import annotations

import sys
import warnings
from functools import lru_cache
from pathlib import Path
from typing import IO

import matplotlib as mpl

mpl.use("Agg")  # before pyplot: no screen is needed
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.text import Text

__all__ = ["plt", "save"]

# Asked in this order for what DejaVu Sans, which comes with matplotlib, does not have.
OTHER_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Source Han Sans"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC"),
    *("Hiragino Sans", "Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic"),
    *("Noto Sans KR", "Malgun Gothic", "Apple SD Gothic Neo", "NanumGothic"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Telugu"),
    *("Noto Sans Thai", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Emoji"),
    *("Arial Unicode MS", "FreeSans", "Unifont"),
)
FONTS = ["DejaVu Sans", *(name for name in OTHER_FONTS if name in fontManager.get_font_names())]
# A dollar is a dollar, in a class name as in a file's.
plt.rcParams.update({"font.family": FONTS, "text.parse_math": False, "text.usetex": False})
warned_of: set[str] = set()  # characters


def save(
    figure: Figure,
    target: Path | IO[bytes],
    *,
    tight: tuple[float, float, float, float] | None = None,
    **options: object,
) -> None:
    """Write a figure and close it; warn once of each character that no font has.

    Args:
        figure: its texts may hold anything; bytes of a name that are no UTF-8 are escaped.
        target: file, or open file.
        tight: lay the axes out within left, bottom, right, top, in 0..1.
        options: of `Figure.savefig`; a format "svg" leaves the fonts to its readers.
    """
    is_drawn = options.get("format") != "svg"
    for text in figure.findobj(Text) if is_drawn else ():
        text.set_text(text.get_text().encode("utf-8", "backslashreplace").decode())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"(?s)Glyph .* missing from", UserWarning)
        if tight is not None:
            figure.tight_layout(rect=tight)
        figure.savefig(target, **options)  # type: ignore[arg-type]
    if is_drawn:
        warn_of_missing(figure)
    plt.close(figure)


@lru_cache(1)
def drawable() -> frozenset[str]:
    """Characters that one of the fonts has."""
    charmaps = (get_font(findfont(name)).get_charmap() for name in FONTS)
    return frozenset(chr(code) for charmap in charmaps for code in charmap)


def warn_of_missing(figure: Figure) -> None:
    """Name the characters of a figure that are drawn as boxes, each once in a process."""
    shown = {c for text in figure.findobj(Text) for c in text.get_text() if not c.isspace()}
    missing = sorted(shown - drawable() - warned_of)
    warned_of.update(missing)
    if missing:
        some = "".join(missing[:10]) + " ..." * (len(missing) > 10)
        sys.stderr.write(
            f"figures: no installed font has {some}, so boxes are drawn; "
            "the Noto fonts have them (fonts-noto-cjk and others)\n"
        )
