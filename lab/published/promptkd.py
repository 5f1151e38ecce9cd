"""PromptKD: an image tower with deep prompts learns a larger teacher's logits."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lab.published.common import Loss, Published, encode_image, normalise, total


class PublishedPromptKD(Published):
    """PromptKD: the student.

    Args:
        clip: of the student; only its image tower and scale are used.
        class_names: the teacher's, in its order.
        learned: "image_encoder.VPT" (M, Wv), "image_encoder.transformer.resblocks.i.VPT_shallow"
            for blocks i = 1, 2, ..., and "VPT_image_trans.conv1.i.weight" and ".bias" for i = 0, 1,
            3, see `Published.adapt`; the first weight is (D of the teacher, D, 1, 1).
        teacher: has logits(images) (B, C) and text() (C, D), unit length; it runs without gradient.
        temperature: of both softmaxes.
        kd_weight: factor of the loss.

    Source: Li et al., CVPR 2024, https://arxiv.org/abs/2403.02781
    """

    adapter = "VPT_image_trans"

    def __init__(
        self,
        clip: nn.Module,
        class_names: Sequence[str],
        learned: Mapping[str, Tensor],
        *,
        teacher: Any,
        temperature: float = 1.0,
        kd_weight: float = 1000.0,
    ) -> None:
        super().__init__(clip, class_names, learned, prefix=None)
        self.teacher = teacher
        self.temperature = temperature
        self.kd_weight = kd_weight

    def image(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Unit-length image features in the teacher's space."""
        deep = self.deep("image_encoder.transformer.resblocks.{}.VPT_shallow", first=1)
        x = encode_image(self.clip, images, self.learned["image_encoder.VPT"], deep)
        return normalise(self.adapt(x))

    @torch.no_grad()
    def teach(
        self, images: Float[Tensor, "B 3 S S"]
    ) -> tuple[Float[Tensor, "C D"], Float[Tensor, "B C"]]:
        """The teacher's text and logits."""
        return self.teacher.text(), self.teacher.logits(images)

    def logits(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B C"]:
        """Scaled cosines to the teacher's text.

        The whole teacher runs, although only its text is used: so does the published test.
        """
        text, _ = self.teach(images)
        return self.scale * self.image(images) @ text.t()

    def loss(
        self, images: Float[Tensor, "B 3 S S"], labels: Int[Tensor, " B"] | None = None
    ) -> Loss:
        """Divergence from the teacher, mean over images and classes; labels are not used."""
        text, wanted = self.teach(images)
        logits = self.scale * self.image(images) @ text.t()  # (B, C)
        divergence = F.kl_div(
            (logits / self.temperature).log_softmax(dim=1),
            (wanted / self.temperature).softmax(dim=1),
            reduction="sum",
        )
        mean = divergence * self.temperature**2 / logits.numel()
        return total({"kd": self.kd_weight * mean})
