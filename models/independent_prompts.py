"""Prompts in both towers, independent (IVLP) or regulated (PromptSRC); in one tower alone (VPT)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.blocks import deep_prompts, unit
from models.classifier import CLIPClassifier, ZeroShotCLIP
from models.precision import full_precision
from models.prompt_learner import PromptLearner
from models.token_pruning import Pruner
from models.visual_encoder import VisualEncoder, VisualTokens, require_blocks

STD = 0.02  # of randomly initialised prompts


def random_prompts(count: int, size: int, width: int) -> nn.ParameterList:
    """`count` prompts (size, width) of normal numbers."""
    return nn.ParameterList(
        nn.Parameter(torch.empty(size, width).normal_(std=STD)) for _ in range(count)
    )


class VisualPrompts(nn.Module):
    """Prompts `vision` of the image tower, one (M, Wv) for each of the blocks 0, 1, ..."""

    def __init__(self, depth: int, shape: tuple[int, int]) -> None:
        """Start at random.

        Args:
            depth: blocks with prompts of their own, 0 or more.
            shape: (M, Wv), of the prompts of a block.
        """
        super().__init__()
        self.vision = random_prompts(depth, *shape)


class IndependentPrompts(PromptLearner):
    """A context, contexts of deeper text blocks, and prompts of the image tower's blocks.

    Learned beside `ctx` (M, W): `text_deeper`, one (M, W) for each of the blocks 1, 2, ...;
    `vision`, one (Mv, Wv) for each of the blocks 0, 1, ...

    Source: PromptSRC (Khattak et al., ICCV 2023), section 3, https://arxiv.org/abs/2307.06948
    """

    def __init__(
        self,
        class_names: list[str],
        token_embedding: nn.Embedding,
        *,
        depths: tuple[int, int],
        vision_shape: tuple[int, int],
        **options: Any,
    ) -> None:
        """Build the prompts of a class list.

        Args:
            class_names: C names.
            token_embedding: CLIP's own, frozen.
            depths: blocks with prompts of their own, image tower (0 or more) and text tower (1 or
                more).
            vision_shape: (Mv, Wv), of the image tower's prompts.
            options: see `PromptLearner`; one context for all classes, before the name.
        """
        super().__init__(class_names, token_embedding, **options)
        self.text_deeper = random_prompts(depths[1] - 1, *self.ctx.shape)
        self.vision = random_prompts(depths[0], *vision_shape)


def see_with_prompts(
    visual: VisualEncoder,
    prompts: nn.ParameterList,
    image: Tensor,
    patch_path: str | None,
    pruner: Pruner | None,
) -> VisualTokens:
    """The image tower with each block's own prompts behind the patches; none: as it is."""
    if not len(prompts):
        return visual(image, patch_path=patch_path, pruner=pruner)
    first, *deeper = prompts
    seam = deep_prompts(deeper, slice(-len(first), None))
    return visual(image, seam, patch_path, first, pruner)


class VisualPromptedCLIP(ZeroShotCLIP):
    """CLIP with fixed sentences and prompts in the image tower (VPT).

    Source: VPT (Jia et al., ECCV 2022), https://arxiv.org/abs/2203.12119, as MaPLe compares with it
    """

    learns_images = True

    visual: VisualEncoder

    def __init__(
        self, clip: nn.Module, prompts: VisualPrompts, class_sentences: list[list[str]]
    ) -> None:
        """Put the prompts on the image tower.

        Args:
            clip: the model.
            prompts: of the image tower.
            class_sentences: see `ZeroShotCLIP`.

        Raises:
            ValueError: the image tower is no ViT, or has fewer blocks than prompts.
        """
        super().__init__(clip, class_sentences)
        require_blocks(self.visual, len(prompts.vision), "VPT.PROMPT_DEPTH_VISION")
        self.learn(prompts)

    def see(self, image: Tensor, patch_path: str | None, pruner: Pruner | None) -> VisualTokens:
        """The image tower with its prompts."""
        return see_with_prompts(self.visual, self.learned.vision, image, patch_path, pruner)


class IndependentCLIP(CLIPClassifier):
    """CLIP with independent prompts in both towers.

    Source: IVLP, the baseline of MaPLe (Khattak et al., CVPR 2023, section 4.1)
    """

    learns_images = True
    node = "IVLP"  # whose keys the depths are

    visual: VisualEncoder

    def __init__(self, clip: nn.Module, prompts: IndependentPrompts) -> None:
        """Put the prompts on the towers.

        Args:
            clip: the model.
            prompts: of both towers.

        Raises:
            ValueError: the image tower is no ViT, or a tower has fewer blocks than prompts.
        """
        super().__init__(clip)
        require_blocks(self.visual, len(prompts.vision), f"{self.node}.PROMPT_DEPTH_VISION")
        require_blocks(self.text, len(prompts.text_deeper) + 1, f"{self.node}.PROMPT_DEPTH_TEXT")
        self.learn(prompts)

    def see(self, image: Tensor, patch_path: str | None, pruner: Pruner | None) -> VisualTokens:
        """The image tower with its prompts."""
        return see_with_prompts(self.visual, self.learned.vision, image, patch_path, pruner)

    def encode_text(self, cls: Float[Tensor, "B D"] | None = None) -> Float[Tensor, "C D"]:
        """The text tower with the deeper contexts at the places of the first."""
        prompts = self.learned
        seam = deep_prompts(list(prompts.text_deeper), prompts.places)
        return unit(self.text(prompts(), seam)[0])


class RegulatedCLIP(IndependentCLIP):
    """CLIP with independent prompts in both towers, and what regulates them (PromptSRC).

    Text features, image features and predictions are each held near to those of plain CLIP, whose
    text features are a mean over many sentences.
    """

    node = "PROMPTSRC"

    def __init__(
        self,
        clip: nn.Module,
        prompts: IndependentPrompts,
        class_sentences: list[list[str]],
        *,
        text_weight: float = 25.0,
        image_weight: float = 10.0,
    ) -> None:
        """Put the prompts on the towers.

        Args:
            clip: the model.
            prompts: of both towers.
            class_sentences: for each template the sentences of all classes.
            text_weight: of the text features' distance to plain CLIP's.
            image_weight: of the image features' distance.

        Raises:
            ValueError: see `IndependentCLIP`.
        """
        super().__init__(clip, prompts)
        self.sentences, self.weights = class_sentences, (text_weight, image_weight)
        self._plain_text: Tensor | None = None

    def plain_text(self) -> Float[Tensor, "C D"]:
        """Plain CLIP's text features, unit length of the mean over templates; computed once."""
        if self._plain_text is None:
            with full_precision(self.logit_scale):
                by_template = [self.text.encode_raw(texts) for texts in self.sentences]
                self._plain_text = unit(torch.stack(by_template).mean(0))
        return self._plain_text

    @torch.no_grad()
    def plain_image(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Plain CLIP's image features, unit length."""
        return self.visual(image).unit().cls

    def ties(
        self, image: Tensor, cls: Tensor, text: Tensor, logits: Tensor
    ) -> dict[str, Float[Tensor, ""]]:
        """L1 to plain CLIP's features of both sides, and the divergence from its predictions."""
        plain_cls, plain_text = self.plain_image(image), self.plain_text()
        plain_logits = self.classify(plain_cls, plain_text)
        divergence = F.kl_div(
            logits.log_softmax(-1), plain_logits.log_softmax(-1), reduction="sum", log_target=True
        )
        return {
            "text": self.weights[0] * F.l1_loss(text, plain_text),
            "image": self.weights[1] * F.l1_loss(cls, plain_cls),
            "logits": divergence / logits.numel(),
        }
