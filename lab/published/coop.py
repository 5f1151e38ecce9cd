"""CoOp: learned words before the class name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from lab.published.common import Published, encode_prompts, normalise


class PublishedCoOp(Published):
    """CoOp, class name at the end.

    Args:
        clip: see `Published`.
        class_names: see `Published`.
        learned: "ctx" (M, W), or (C, M, W) where classes have their own.
        prefix: placeholder of M words; None for "X X ... X", as without CTX_INIT.

    Source: Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134
    """

    def __init__(
        self,
        clip: nn.Module,
        class_names: Sequence[str],
        learned: Mapping[str, Tensor],
        *,
        prefix: str | None = None,
    ) -> None:
        prefix = placeholder(learned["ctx"]) if prefix is None else prefix
        super().__init__(clip, class_names, learned, prefix=prefix)

    def text(self) -> Float[Tensor, "C D"]:
        """Unit-length text features."""
        prompts = self.prompts(self.learned["ctx"])
        return normalise(encode_prompts(self.clip, prompts, self.ids))


def placeholder(ctx: Float[Tensor, "*C M W"]) -> str:
    """One X for each learned word."""
    return " ".join("X" * ctx.shape[-2])
