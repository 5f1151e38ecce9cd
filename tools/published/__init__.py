"""The published prompt tuners, slow and literal: for parity tests and as the baseline of speed.

Written from their papers and published behaviour on plain modules of OpenAI's `clip`: all 77
positions, text encoded anew for every batch, prompts inserted block by block. Precision is that of
the CLIP at hand; nothing is halved on the way. Nothing here is fit for use, only for comparison.
"""

from tools.published.cocoop import PublishedCoCoOp
from tools.published.common import Published
from tools.published.coop import PublishedCoOp
from tools.published.maple import PublishedMaPLe
from tools.published.promptkd import PublishedPromptKD
from tools.published.promptsrc import PublishedIVLP, PublishedPromptSRC, PublishedVPT
from tools.published.spotlighter import PublishedSpotlighter
from tools.published.text_refiner import PublishedTextRefiner

__all__ = [
    "Published",
    "PublishedCoCoOp",
    "PublishedCoOp",
    "PublishedIVLP",
    "PublishedMaPLe",
    "PublishedPromptKD",
    "PublishedPromptSRC",
    "PublishedSpotlighter",
    "PublishedTextRefiner",
    "PublishedVPT",
]
