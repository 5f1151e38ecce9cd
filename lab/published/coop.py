"""CoOp: learned words before the class name."""

from __future__ import annotations

from lab.published.common import Published


class PublishedCoOp(Published):
    """CoOp, class name at the end: `Published` as it is.

    Args:
        learned: "ctx" (M, W), or (C, M, W) where classes have their own.
        prefix: placeholder of M words.

    Source: Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134
    """
