"""What the tiny CLIP is trained on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from clip.model import CLIP
from jaxtyping import Float, Int
from torch import Tensor, nn

from lab.pretrain.batches import Batch
from lab.pretrain.towers import encode_image, encode_text

CLASS_WEIGHT = 1.0
DENSE_WEIGHT = 0.2
IGNORED = -100


class PretrainingLoss(nn.Module):
    """CLIP's loss, an auxiliary class head that is thrown away, and a dense term.

    The dense term asks each patch that shows the object to prefer its own caption.

    Args:
        model: the CLIP in training.
        num_concepts: classes of the auxiliary head.
    """

    def __init__(self, model: CLIP, num_concepts: int) -> None:
        super().__init__()
        self.model = model
        self.head = nn.Linear(model.visual.output_dim, num_concepts)

    def forward(
        self, batch: Batch, kept: Int[Tensor, "B K"] | None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the loss, and the share of pictures that choose their own caption (0-1)."""
        tokens = encode_image(self.model, batch.pixels, kept)
        embedded = self.model.token_embedding(batch.tokens)
        text = F.normalize(encode_text(self.model, embedded, batch.ends), dim=-1)
        scale = self.model.logit_scale.exp()
        own = torch.arange(len(text))
        logits = scale * F.normalize(tokens[:, 0], dim=-1) @ text.T
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        loss = loss + CLASS_WEIGHT * F.cross_entropy(self.head(tokens[:, 0]), batch.concepts)
        on_object = batch.on_object if kept is None else batch.on_object.gather(1, kept)
        dense = scale.detach() * F.normalize(tokens[:, 1:], dim=-1) @ text.T  # (B, K, B)
        target = torch.where(on_object, own[:, None], IGNORED)
        patch_loss = F.cross_entropy(
            dense.flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="sum"
        ) / on_object.sum().clamp(min=1)
        right = (logits.argmax(1) == own).float().mean()
        return loss + DENSE_WEIGHT * patch_loss, right
