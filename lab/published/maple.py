"""MaPLe: deep prompts of the text tower; those of the image tower are linear maps of them."""

from jaxtyping import Float
from torch import Tensor

from lab.published.common import Published, encode_image, normalise


class PublishedMaPLe(Published):
    """MaPLe.

    The whole prefix is tokenised, but only the M words of "ctx" are learned: of "a photo of a" and
    M = 2, "of a" stays as it is at positions 3 and 4.

    Args:
        learned: "ctx" (M, W), "proj.weight" (Wv, W) and, for depth J, J - 1 times
            "compound_prompts_text.i" (M, W), "compound_prompt_projections.i.weight" (Wv, W), each
            weight with its ".bias".
        prefix: at least M words.

    Source: Khattak et al., CVPR 2023, https://arxiv.org/abs/2210.03117
    """

    def compound(self) -> list[Float[Tensor, "M W"]]:
        """Text prompts of blocks 1, 2, ..."""
        return self.deep("compound_prompts_text.{}", first=0)

    def text(self) -> Float[Tensor, "C D"]:
        """Unit-length text features."""
        return super().text(self.compound())

    def image(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Unit-length image features."""
        deep = [
            self.linear(prompts, f"compound_prompt_projections.{i}")
            for i, prompts in enumerate(self.compound())
        ]
        first = self.linear(self.learned["ctx"], "proj")
        return normalise(encode_image(self.clip, images, first, deep))
