"""The published prompt tuners, slow and literal: for tests of parity and for the benchmark.

Written from their papers and published behaviour on plain modules of OpenAI's `clip`: all 77
positions, text encoded anew for every batch, prompts inserted block by block. Precision is that of
the given CLIP. Use them for comparison only.
"""

from lab.published.common import Published
from lab.published.coop import PublishedCoCoOp, PublishedCoOp
from lab.published.maple import PublishedMaPLe
from lab.published.promptkd import PublishedPromptKD
from lab.published.promptsrc import PublishedIVLP, PublishedPromptSRC, PublishedVPT
from lab.published.spotlighter import PublishedSpotlighter
from lab.published.text_refiner import PublishedTextRefiner

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
