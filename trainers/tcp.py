"""TCP: KgCoOp whose text tower gets tokens made from each class's fixed text feature.

Source: Yao et al., CVPR 2024, https://arxiv.org/abs/2311.18231, sections 3.2 and 3.3
"""

from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from yacs.config import CfgNode

from datasets.base import template
from models.clip.blocks import unit
from models.clip.text_tower import Packing
from models.clip.tokenizer import normalise_name, tokenizer_of
from models.prompts import PromptLearner
from trainers.base import register
from trainers.coop import CoOp, CoOpSettings
from trainers.kgcoop import KgCoOpModel
from trainers.settings import BuildContext
from trainers.templates import one_each

BOTTLENECK = 4  # the joint width over the hidden layer's
WEIGHT = 8.0  # of the distance to the fixed sentence; the published code does not read its key W
DEPTH = 2 / 3  # of the tower, where class tokens come in: before block 8 of 12, counted from 0
EPSILON = 1e-3  # of Adam, as published


class QuickGELU(nn.Module):
    """CLIP's activation."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The product of x and sigmoid(1.702 x)."""
        return x * torch.sigmoid(1.702 * x)


class ClassAwarePrompts(PromptLearner):
    """CoOp's prompts, and a network from a text feature to as many tokens as the context has."""

    keeps_shared = False

    def __init__(
        self, class_names: list[str], token_embedding: nn.Embedding, joint: int, **options: Any
    ) -> None:
        """`joint` is D, the length of a text feature; `options` are `PromptLearner`'s."""
        super().__init__(class_names, token_embedding, **options)
        inner, width = max(1, joint // BOTTLENECK), token_embedding.embedding_dim
        layers = {
            "linear1": nn.Linear(joint, inner),
            "relu": QuickGELU(),
            "linear2": nn.Linear(inner, self.n_ctx * width),
        }
        self.meta_net = nn.Sequential(OrderedDict(layers))

    def class_tokens(self, text: Float[Tensor, "C D"]) -> Float[Tensor, "C M W"]:
        """Tokens made from fixed text features of unit length."""
        return self.meta_net(text).unflatten(1, (self.n_ctx, -1))


def replace_context(
    at: int, tokens: Float[Tensor, "C M W"],
    classes: slice, depth: int, x: Float[Tensor, "G R W"], packing: Packing,
) -> Float[Tensor, "G R W"]:
    """Before block `at`, put the tokens of each class in the place of its context."""
    if depth != at:
        return x
    start = nn.functional.pad(packing.end[:-1] + 1, (1, 0))  # (C,) of each tail, its context first
    places = start.unsqueeze(1) + torch.arange(tokens.shape[1], device=x.device)  # (C, M)
    own = tokens[classes].flatten(0, 1).to(x.dtype)
    return x.index_copy(1, places.flatten(), own.expand(len(x), -1, -1))


class TCPModel(KgCoOpModel):
    """CLIP whose prompts are learned, and known class by class in its upper text blocks."""

    def encode_text(self, cls: Float[Tensor, "B D"] | None = None) -> Float[Tensor, "C D"]:
        """Encode the prompts and the class tokens as they are now."""
        tokens = self.learned.class_tokens(self.fixed)
        seam = partial(replace_context, int(DEPTH * self.text.num_blocks), tokens)
        return unit(self.text(self.learned(), in_tails=seam)[0])


@register
class TCP(CoOp):
    """Textual-based class-aware prompt tuning."""

    takes_head = False  # its optimiser has an epsilon of its own

    @classmethod
    def extend_cfg(cls, cfg: CfgNode) -> None:
        """CoOp's keys are there already; adding them again would lose KgCoOp's W."""

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: CoOpSettings, run: BuildContext
    ) -> TCPModel:
        """Learned prompts that end as the data set's sentence does, and that sentence."""
        whole = template(run.cfg.DATASET.NAME)
        end = whole[whole.index("{}") + 2 :].rstrip(".")  # as ", a type of pet"
        prompts = ClassAwarePrompts(
            [normalise_name(name) + end for name in class_names], clip.token_embedding,
            clip.text_projection.shape[1], n_ctx=settings.N_CTX, ctx_init=settings.CTX_INIT,
            tokenizer=tokenizer_of(clip),
        )
        return TCPModel(clip, prompts, one_each(whole, class_names), WEIGHT)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All that is learned, with the published epsilon where the optimiser is Adam."""
        own = {"eps": EPSILON} if self.cfg.OPTIM.NAME == "adam" else {}
        return [group | own for group in super().parameter_groups()]
