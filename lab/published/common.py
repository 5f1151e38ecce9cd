"""Both CLIP towers with learned prompts, and the interface of the published tuners."""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.clip.openai import import_clip

Loss = tuple[Tensor, dict[str, Tensor]]
"""A loss, and its terms by name, weights included: they sum to the loss."""


def normalise(x: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
    """Scale the last axis to unit length."""
    return x / x.norm(dim=-1, keepdim=True)


def tokenise(template: str, class_names: Sequence[str]) -> Int[Tensor, "C 77"]:
    """Token ids of a sentence with {} for the class name."""
    return import_clip().tokenize([template.format(n.replace("_", " ")) for n in class_names])


def through_blocks(
    blocks: Iterable[nn.Module],
    x: Float[Tensor, "L B W"],
    deep: Sequence[Float[Tensor, "M W"]],
    start: int,
) -> Float[Tensor, "L B W"]:
    """All blocks in order; before block j >= 1, deep[j - 1] replaces the M tokens from `start`."""
    for j, block in enumerate(blocks):
        if 1 <= j <= len(deep):
            own = deep[j - 1].unsqueeze(1).expand(-1, x.shape[1], -1)  # (M, B, W)
            x = torch.cat([x[:start], own, x[start + len(own) :]])
        x = block(x)  # a block of the text tower carries its causal mask
    return x


def encode_prompts(
    clip: nn.Module,
    prompts: Float[Tensor, "C 77 W"],
    ids: Int[Tensor, "C 77"],
    deep: Sequence[Float[Tensor, "M W"]] = (),
) -> Float[Tensor, "C D"]:
    """Text features, not unit length.

    Args:
        clip: OpenAI's model.
        prompts: token embeddings without positions.
        ids: of the placeholder sentences; the highest of a row is its end of text.
        deep: what replaces positions 1..M before blocks 1, 2, ...; it gets no positions.
    """
    x = prompts + clip.positional_embedding
    x = through_blocks(clip.transformer.resblocks, x.permute(1, 0, 2), deep, start=1)  # (77, C, W)
    x = clip.ln_final(x.permute(1, 0, 2))  # (C, 77, W)
    return x[torch.arange(len(x), device=x.device), ids.argmax(dim=-1)] @ clip.text_projection


def embed_image(
    visual: nn.Module,
    images: Float[Tensor, "B 3 S S"],
    prompts: Float[Tensor, "M W"] | None = None,
) -> Float[Tensor, "L B W"]:
    """Tokens before the first block: class token, N patches, then M prompts without positions."""
    x = visual.conv1(images).flatten(2).permute(0, 2, 1)  # (B, N, W)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)  # (B, 1 + N, W)
    x = x + visual.positional_embedding
    if prompts is not None:
        x = torch.cat([x, prompts.expand(len(x), -1, -1)], dim=1)  # (B, 1 + N + M, W)
    return visual.ln_pre(x).permute(1, 0, 2)


def encode_image(
    clip: nn.Module,
    images: Float[Tensor, "B 3 S S"],
    prompts: Float[Tensor, "M W"] | None = None,
    deep: Sequence[Float[Tensor, "M W"]] = (),
) -> Float[Tensor, "B D"]:
    """Features of the class token, not unit length; deep[j - 1] replaces the last M tokens."""
    visual = clip.visual
    x = embed_image(visual, images, prompts)  # (L, B, W)
    start = len(x) if prompts is None else len(x) - len(prompts)
    x = through_blocks(visual.transformer.resblocks, x, deep, start)
    return visual.ln_post(x[0]) @ visual.proj


class Published:
    """A published prompt tuner: start values in, logits and losses out.

    `clip`, OpenAI's model, is frozen in place, as the published trainers do.

    Args:
        learned: start values by published key, without the prefix of the registered model. They
            are copied to `self.learned`, the leaf tensors that an optimiser takes.
        prefix: words before the class name, of which a tuner learns the first M. A run without
            CTX_INIT has "X X ... X", one X for each learned word. None: no prompts.
    """

    adapter: ClassVar[str] = ""
    """Key of a map on image features that is learned: convolution, batch norm, convolution."""

    def __init__(
        self,
        clip: nn.Module,
        class_names: Sequence[str],
        learned: Mapping[str, Tensor],
        *,
        prefix: str | None = "a photo of a",
    ) -> None:
        self.clip = clip.eval().requires_grad_(False)
        self.training = True
        self.learned = {k: value.detach().clone().requires_grad_() for k, value in learned.items()}
        if prefix is not None:
            ids = tokenise(f"{prefix} {{}}.", class_names)
            self.ids = ids.to(clip.token_embedding.weight.device)
            self.embedded = clip.token_embedding(self.ids)  # (C, 77, W)
        if self.adapter:
            weight = learned[f"{self.adapter}.conv1.1.weight"].detach()
            self.running_mean, self.running_var = torch.zeros_like(weight), torch.ones_like(weight)

    @property
    def scale(self) -> Tensor:
        """Factor of the cosines."""
        return self.clip.logit_scale.exp()

    def linear(self, x: Float[Tensor, "R D1"], name: str) -> Float[Tensor, "R D2"]:
        """A learned map with bias."""
        return F.linear(x, self.learned[f"{name}.weight"], self.learned[f"{name}.bias"])

    def adapt(self, x: Float[Tensor, "R D1"]) -> Float[Tensor, "R D2"]:
        """The adapter on R rows, taken as R pictures of one pixel; all share the statistics."""
        first, norm, last = (
            [self.learned[f"{self.adapter}.conv1.{i}.{part}"] for part in ("weight", "bias")]
            for i in (0, 1, 3)
        )
        x = F.conv2d(x[:, :, None, None], *first)  # (R, D2, 1, 1)
        statistics = (self.running_mean, self.running_var)
        x = F.batch_norm(x, *statistics, *norm, training=self.training, momentum=0.1)
        return F.conv2d(x.relu(), *last).flatten(1)  # (R, D2)

    def deep(self, key: str, first: int) -> list[Tensor]:
        """Learned tensors key.format(first), key.format(first + 1), ... as far as there are."""
        prompts = []
        while (name := key.format(first + len(prompts))) in self.learned:
            prompts.append(self.learned[name])
        return prompts

    def prompts(self, ctx: Float[Tensor, "*C M W"]) -> Float[Tensor, "C 77 W"]:
        """The sentences with `ctx` at positions 1..M; further words of the prefix stay behind."""
        ctx = ctx.expand(len(self.embedded), -1, -1)  # (C, M, W)
        return torch.cat([self.embedded[:, :1], ctx, self.embedded[:, 1 + ctx.shape[1] :]], dim=1)

    def text(self, deep: Sequence[Float[Tensor, "M W"]] = ()) -> Float[Tensor, "C D"]:
        """Unit-length text features of the learned context and of deep prompts."""
        prompts = self.prompts(self.learned["ctx"])
        return normalise(encode_prompts(self.clip, prompts, self.ids, deep))

    def image(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Unit-length image features."""
        return normalise(encode_image(self.clip, images))

    def logits(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B C"]:
        """Scaled cosines."""
        return self.scale * self.image(images) @ self.text().t()

    def loss(self, images: Float[Tensor, "B 3 S S"], labels: Int[Tensor, " B"]) -> Loss:
        """The training loss, and its terms."""
        return total({"ce": F.cross_entropy(self.logits(images), labels)})


def total(parts: dict[str, Tensor]) -> Loss:
    """The sum of a loss's terms, and the terms."""
    return sum(parts.values()), parts
