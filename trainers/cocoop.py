"""CoCoOp: the words before the class name are learned, and shifted by each image.

Source: CoCoOp (Zhou et al., CVPR 2022), section 3.2, https://arxiv.org/abs/2203.05557
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from models.classifier import CLIPClassifier
from models.clip.blocks import unit
from models.clip.text_tower import Prompts
from models.clip.tokenizer import tokenizer_of
from models.prompts import PromptLearner
from trainers.base import CLIPTrainer, register
from trainers.settings import BuildContext, Settings

BOTTLENECK = 16  # the hidden layer of the meta-network is D / 16 wide


@dataclass(frozen=True)
class CoCoOpSettings(Settings):
    """Keys of TRAINER.COCOOP."""

    N_CTX: int = 16
    CTX_INIT: str = ""

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        return super().problems() + self.at_least(1, "N_CTX")


class ConditionalPrompts(PromptLearner):
    """A shared context; a small network makes each image's feature a vector that is added to it."""

    def __init__(
        self, class_names: list[str], token_embedding: nn.Embedding, joint: int, **options: Any
    ) -> None:
        """`joint` is D, the length of an image feature; `options` are `PromptLearner`'s."""
        super().__init__(class_names, token_embedding, **options)
        inner = max(1, joint // BOTTLENECK)
        layers = {
            "linear1": nn.Linear(joint, inner),
            "relu": nn.ReLU(inplace=True),
            "linear2": nn.Linear(inner, token_embedding.embedding_dim),
        }
        self.meta_net = nn.Sequential(OrderedDict(layers))

    def forward(self, cls: Float[Tensor, "B D"]) -> Prompts:  # type: ignore[override]
        """The prompts of all classes for each image; `cls` is unit length."""
        shift = self.meta_net(cls).unsqueeze(1)  # (B, 1, W)
        return self.with_context(self.ctx + shift)


class CoCoOpModel(CLIPClassifier):
    """CLIP whose text features are computed for each image."""

    text_depends_on_image = True

    def __init__(self, clip: nn.Module, prompts: ConditionalPrompts) -> None:
        super().__init__(clip)
        self.learn(prompts)

    def encode_text(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, "B C D"]:
        """Encode the prompts of every image."""
        return unit(self.text(self.learned(cls)))


@register
class CoCoOp(CLIPTrainer):
    """Conditional prompt learning."""

    node = "COCOOP"
    settings_class = CoCoOpSettings
    takes_head = takes_features = True

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: CoCoOpSettings, run: BuildContext
    ) -> CoCoOpModel:
        """CLIP with a context and the network that shifts it."""
        prompts = ConditionalPrompts(
            class_names, clip.token_embedding, clip.text_projection.shape[1], n_ctx=settings.N_CTX,
            ctx_init=settings.CTX_INIT, tokenizer=tokenizer_of(clip),
        )
        return CoCoOpModel(clip, prompts)
