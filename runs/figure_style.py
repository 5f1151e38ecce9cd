"""Matplotlib figures without a screen: every text as it stands, in fonts of many scripts."""

import sys
import warnings
from functools import cache
from pathlib import Path
from typing import IO

import matplotlib as mpl

mpl.use("Agg")  # before pyplot: no screen is needed
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.text import Text

__all__ = ["plt", "save"]

# Used in this order for what DejaVu Sans, which comes with matplotlib, does not have.
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
# Texts hold names of classes and files, in which a dollar is no formula.
plt.rcParams.update({"font.family": FONTS, "text.parse_math": False, "text.usetex": False})
warned_of: set[str] = set()  # characters, each once in a process


def save(
    figure: Figure, target: Path | IO[bytes], *,
    tight: tuple[float, float, float, float] | None = None, **options: object,
) -> None:
    """Write a figure, warn once of each character that no font has; close it in any case.

    Bytes in a text that are not UTF-8 are escaped; an svg leaves the fonts to its readers. `tight`
    is left, bottom, right and top of the axes in 0..1, `options` are those of `Figure.savefig`.
    """
    is_drawn = options.get("format") != "svg"
    for text in figure.findobj(Text) if is_drawn else ():
        text.set_text(text.get_text().encode("utf-8", "backslashreplace").decode())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"(?s)Glyph .* missing from", UserWarning)
            if tight is not None:
                figure.tight_layout(rect=tight)
            figure.savefig(target, **options)  # type: ignore[arg-type]
    finally:
        plt.close(figure)
    shown = {c for text in figure.findobj(Text) for c in text.get_text() if not c.isspace()}
    if is_drawn and (missing := sorted(shown - drawable() - warned_of)):
        warned_of.update(missing)
        some = "".join(missing[:10]) + " ..." * (len(missing) > 10)
        sys.stderr.write(
            f"figures: no installed font has {some}, so boxes are drawn; "
            "the Noto fonts have them (fonts-noto-cjk and others)\n"
        )


@cache
def drawable() -> frozenset[str]:
    """Characters that one of the fonts has."""
    charmaps = (get_font(findfont(name)).get_charmap() for name in FONTS)
    return frozenset(chr(code) for charmap in charmaps for code in charmap)
