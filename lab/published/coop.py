"""CoOp: learned words before the class name. CoCoOp: an image shifts them."""

import torch
from jaxtyping import Float
from torch import Tensor

from lab.published.common import Published, encode_prompts, normalise


class PublishedCoOp(Published):
    """CoOp, class name at the end: `Published` as it is.

    Args:
        learned: "ctx" (M, W), or (C, M, W) where classes have their own.

    Source: Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134
    """


class PublishedCoCoOp(Published):
    """CoCoOp; the text tower runs for each image.

    Args:
        learned: "ctx" (M, W) and "meta_net.linear1.weight" (D // 16, D), "meta_net.linear2.weight"
            (W, D // 16), each with its ".bias".

    Source: Zhou et al., CVPR 2022, https://arxiv.org/abs/2203.05557
    """

    def shift(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B W"]:
        """What each image adds to every learned word."""
        hidden = self.linear(features, "meta_net.linear1").relu()  # (B, D // 16)
        return self.linear(hidden, "meta_net.linear2")

    def logits(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B C"]:
        """Scaled cosines, image by image; all prompts are formed before the loop."""
        features = self.image(images)
        ctx = self.learned["ctx"] + self.shift(features).unsqueeze(1)  # (B, M, W)
        prompts = torch.stack([self.prompts(own) for own in ctx])  # (B, C, 77, W)
        rows = []
        for feature, own in zip(features, prompts, strict=True):
            text = normalise(encode_prompts(self.clip, own, self.ids))  # (C, D)
            rows.append(self.scale * feature @ text.t())
        return torch.stack(rows)
