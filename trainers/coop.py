"""CoOp: the words before the class name are learned.

Source: CoOp (Zhou et al., IJCV 2022), https://arxiv.org/abs/2109.01134
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from models.classifier import CLIPClassifier
from models.clip.blocks import unit
from models.clip.tokenizer import tokenizer_of
from models.prompts import POSITIONS, PromptLearner
from trainers.base import CLIPTrainer, register
from trainers.settings import BuildContext, Settings


@dataclass(frozen=True)
class CoOpSettings(Settings):
    """Keys of TRAINER.COOP."""

    N_CTX: int = 16
    CSC: bool = False
    CTX_INIT: str = ""
    CLASS_TOKEN_POSITION: str = "end"

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        found = super().problems() + self.one_of(POSITIONS, "CLASS_TOKEN_POSITION")
        return found + self.at_least(1, "N_CTX")


class CoOpModel(CLIPClassifier):
    """CLIP whose text features come from learned prompts."""

    def __init__(self, clip: nn.Module, prompts: PromptLearner) -> None:
        super().__init__(clip)
        self.learn(prompts)

    def encode_text(self, cls: Float[Tensor, "B D"] | None = None) -> Float[Tensor, "C D"]:
        """Encode the prompts as they are now."""
        return unit(self.text(self.learned())[0])


def coop_prompts(clip: nn.Module, class_names: list[str], settings: CoOpSettings) -> PromptLearner:
    """The prompts that CoOp learns, and methods that are built on it."""
    return PromptLearner(
        class_names, clip.token_embedding, n_ctx=settings.N_CTX, ctx_init=settings.CTX_INIT,
        csc=settings.CSC, class_token_position=settings.CLASS_TOKEN_POSITION,
        tokenizer=tokenizer_of(clip),
    )


@register
class CoOp(CLIPTrainer):
    """Context optimisation."""

    node = "COOP"
    settings_class = CoOpSettings
    takes_head = takes_features = True

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: CoOpSettings, run: BuildContext
    ) -> CoOpModel:
        """CLIP with learned prompts."""
        return CoOpModel(clip, coop_prompts(clip, class_names, settings))

    def compatibility(self) -> dict[str, Any]:
        """Class-specific context belongs to its class list."""
        own = super().compatibility()
        return own | {"class_names": self.class_names} if self.model.learned.csc else own
