"""Deep prompts: in the image tower (VPT), in both towers (IVLP), held close to CLIP (PromptSRC)."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lab.published.common import Loss, Published, encode_image, normalise, tokenise, total

DEEP = "{}.transformer.resblocks.{{}}.VPT_shallow"


class PublishedVPT(Published):
    """Deep visual prompts beside fixed sentences.

    Args:
        learned: "image_encoder.VPT" (Mv, Wv), and for blocks i = 1, 2, ...
            "image_encoder.transformer.resblocks.i.VPT_shallow" (Mv, Wv); none of them for a tower
            without prompts.

    Source: Jia et al., ECCV 2022, https://arxiv.org/abs/2203.12119, as MaPLe compares with it
    """

    def text(self) -> Float[Tensor, "C D"]:
        """Unit-length text features of the sentences as they are."""
        return normalise(self.clip.encode_text(self.ids))

    def image(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Unit-length image features."""
        deep = self.deep(DEEP.format("image_encoder"), first=1)
        first = self.learned.get("image_encoder.VPT")
        return normalise(encode_image(self.clip, images, first, deep))


class PublishedIVLP(PublishedVPT):
    """Independent vision-language prompts, the baseline of MaPLe and the start of PromptSRC.

    Args:
        learned: those of `PublishedVPT`, "ctx" (M, W), and for blocks i = 1, 2, ...
            "text_encoder.transformer.resblocks.i.VPT_shallow" (M, W).

    Source: Khattak et al., CVPR 2023, https://arxiv.org/abs/2210.03117
    """

    def text(self) -> Float[Tensor, "C D"]:
        """Unit-length text features."""
        return Published.text(self, self.deep(DEEP.format("text_encoder"), first=1))


class PublishedPromptSRC(PublishedIVLP):
    """PromptSRC.

    Args:
        learned: see `PublishedIVLP`.
        templates: sentences with {} for the class name; their mean is what text is held close to.
        text_loss_weight: of the distance to the frozen text features.
        image_loss_weight: of the distance to the frozen image features.

    Source: Khattak et al., ICCV 2023, https://arxiv.org/abs/2307.06948
    """

    def __init__(
        self,
        clip: nn.Module,
        class_names: Sequence[str],
        learned: Mapping[str, Tensor],
        *,
        templates: Sequence[str],
        prefix: str = "a photo of a",
        text_loss_weight: float = 25.0,
        image_loss_weight: float = 10.0,
    ) -> None:
        super().__init__(clip, class_names, learned, prefix=prefix)
        self.text_loss_weight = text_loss_weight
        self.image_loss_weight = image_loss_weight
        device = clip.token_embedding.weight.device
        with torch.no_grad():
            features = [  # (C, D) each, not unit length
                clip.encode_text(tokenise(template, class_names).to(device))
                for template in templates
            ]
        self.frozen_text = torch.stack(features, dim=1).mean(dim=1)  # (C, D), not unit length

    def loss(self, images: Float[Tensor, "B 3 S S"], labels: Int[Tensor, " B"]) -> Loss:
        """Cross-entropy, and the distances to the frozen text, image and logits."""
        text, image = self.text(), self.image(images)
        logits = self.scale * image @ text.t()  # (B, C)
        frozen_text = normalise(self.frozen_text)
        with torch.no_grad():
            frozen_image = normalise(encode_image(self.clip, images))
            frozen_logits = self.scale * frozen_image @ frozen_text.t()
        divergence = F.kl_div(
            logits.log_softmax(dim=1),
            frozen_logits.log_softmax(dim=1),
            reduction="sum",
            log_target=True,
        )
        return total(
            {
                "ce": F.cross_entropy(logits, labels),
                "text": self.text_loss_weight * F.l1_loss(text, frozen_text),
                "image": self.image_loss_weight * F.l1_loss(image, frozen_image),
                "logits": divergence / logits.numel(),
            }
        )

    @staticmethod
    def gpa_weights(mean: float, std: float, epochs: int) -> list[float]:
        """Weights in the final average of the states after epochs 1, 2, ...; they sum to 1."""
        density = [math.exp(-0.5 * ((e - mean) / std) ** 2) for e in range(1, epochs + 1)]
        whole = sum(density)
        return [value / whole for value in density]
