"""TextRefiner on CoOp: a memory of image tokens refines the text features."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lab.published.common import Loss, Published, embed_image, normalise, through_blocks, total

TOPK = 5  # patches with the most attention of the class token
BALANCE = 50.0  # divides the losses of single tokens
DISTILL = 20.0  # factor of the distance between features before and after
ALPHA = 0.2  # share of what the memory adds to the text
MOMENTUM = 0.8  # what a slot keeps of itself when it is written


class PublishedTextRefiner(Published):
    """TextRefiner, CoOp variant.

    Args:
        learned: "ctx" as in CoOp, "mid_image_trans.conv1.i.weight" and ".bias" for i = 0, 1, 3, see
            `Published.adapt`, and "extractor.weight" (D, 2 D).
        memory_item: S slots of unit length.

    Source: Xie et al., AAAI 2025, https://arxiv.org/abs/2412.08176
    """

    adapter = "mid_image_trans"

    def __init__(
        self,
        clip: nn.Module,
        class_names: Sequence[str],
        learned: Mapping[str, Tensor],
        *,
        memory_item: Float[Tensor, "S D"],
        prefix: str = "a photo of a",
    ) -> None:
        super().__init__(clip, class_names, learned, prefix=prefix)
        self.memory_item = memory_item.detach().clone()

    def tokens(
        self, images: Float[Tensor, "B 3 S S"]
    ) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B N"]]:
        """Class token and patches of the last block, projected, and the attention to the patches.

        The tokens are not unit length; the attention is that of the class token, mean of heads.
        Differs from the published code, in its favour, in: the attention map and the projection of
        all tokens are paid in the last block only, not in every one.
        """
        visual = self.clip.visual
        *blocks, last = visual.transformer.resblocks
        x = through_blocks(blocks, embed_image(visual, images), deep=(), start=0)  # (L, B, W)
        normed = last.ln_1(x)
        attended, attention = last.attn(normed, normed, normed, need_weights=True)  # (B, L, L)
        x = x + attended
        x = x + last.mlp(last.ln_2(x))
        return visual.ln_post(x.permute(1, 0, 2)) @ visual.proj, attention[:, 0, 1:]

    def refine(self, text: Float[Tensor, "C D"]) -> Float[Tensor, "C D"]:
        """Text features plus a linear map of them and of their read of the memory.

        They are not unit length.
        """
        both = torch.cat([text, read_memory(text, self.memory_item)], dim=1)  # (C, 2 D)
        return text + ALPHA * F.linear(both, self.learned["extractor.weight"])

    def write(self, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Adapted tokens; in training they are written into the memory."""
        x = self.adapt(tokens.flatten(0, 1)).view_as(tokens)
        if self.training:
            self.memory_item = write_memory(self.memory_item, x)
        return x

    def rows_loss(
        self, rows: Float[Tensor, "B K D"], text: Float[Tensor, "C D"], labels: Int[Tensor, " B"]
    ) -> Tensor:
        """Cross-entropy of single tokens, each with the label of its image."""
        logits = self.scale * rows.flatten(0, 1) @ text.t()  # (B * K, C)
        return F.cross_entropy(logits, labels.repeat_interleave(rows.shape[1])) / BALANCE

    def logits(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B C"]:
        """Image features times refined text; the memory is read, not written."""
        return self.scale * self.image(images) @ self.refine(self.text()).t()

    def loss(self, images: Float[Tensor, "B 3 S S"], labels: Int[Tensor, " B"]) -> Loss:
        """Cross-entropy of images and of tokens, the distance of the text; writes the memory."""
        tokens, attention = self.tokens(images)  # (B, L, D), (B, N)
        text = self.text()
        refined = self.refine(text)
        logits = self.scale * normalise(tokens[:, 0]) @ refined.t()  # (B, C)
        rows = token_rows(self.write(tokens), attention, offset=1)
        return total(
            {
                "ce": F.cross_entropy(logits, labels),
                "tokens": self.rows_loss(rows, text, labels),
                "text": distance(refined, text),
            }
        )


def read_memory(query: Float[Tensor, "R D"], memory: Float[Tensor, "S D"]) -> Float[Tensor, "R D"]:
    """Mean of the slots, weighted by their likeness to each query."""
    return (query @ memory.t()).softmax(dim=1) @ memory


@torch.no_grad()
def write_memory(memory: Float[Tensor, "S D"], x: Float[Tensor, "B L D"]) -> Float[Tensor, "S D"]:
    """The memory after a batch, a new tensor; every token goes to the slot it is most like.

    The tokens of a slot are summed, not averaged; each counts in relation to the token of the batch
    most like the slot, be that its own or not. A slot without tokens stays.
    """
    tokens = normalise(x.flatten(0, -2))  # (B * L, D)
    scores = tokens @ memory.t()  # (B * L, S)
    slots = scores.argmax(dim=1)  # (B * L,)
    shares = scores.softmax(dim=0)  # over tokens
    written = memory.clone()
    for i in range(len(memory)):
        own = slots == i
        if own.any():
            weights = shares[own, i] / shares[:, i].max()  # (R,)
            added = (weights.unsqueeze(1) * tokens[own]).sum(dim=0)  # (D,)
            written[i] = MOMENTUM * memory[i] + (1 - MOMENTUM) * added
    return normalise(written)


def token_rows(
    x: Float[Tensor, "B L D"], attention: Float[Tensor, "B N"], offset: int
) -> Float[Tensor, "B 7 D"]:
    """Class token, the tokens with most attention in falling order, the mean of all tokens.

    Args:
        x: class token and N patches.
        attention: to the N patches.
        offset: of the patches in `x`; 1, but 0 in the released Spotlighter, by mistake.
    """
    top = attention.topk(TOPK, dim=1).indices + offset  # (B, 5)
    image = torch.arange(len(x), device=x.device).unsqueeze(1)  # (B, 1)
    return torch.cat([x[:, :1], x[image, top], x.mean(dim=1, keepdim=True)], dim=1)


def distance(changed: Float[Tensor, "R D"], before: Float[Tensor, "R D"]) -> Tensor:
    """Weighted L1 distance of changed features from unit-length ones; both carry gradients."""
    return DISTILL * F.l1_loss(normalise(changed), before)
