"""TextRefiner: CoOp's prompts, whose text features read from a memory of local image features.

Source: TextRefiner (Xie et al., AAAI 2025), section 3, https://arxiv.org/abs/2412.08176
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from yacs.config import CfgNode

from models.classifier import Images, Step, Target
from models.clip.blocks import at_least_float32, full_precision, gather_tokens, unit
from models.clip.image_tower import VisualTokens, require_vit
from models.prompts import PromptLearner
from trainers.base import CLIPTrainer, register
from trainers.coop import CoOp, CoOpModel, CoOpSettings, coop_prompts
from trainers.settings import BuildContext, Settings, read_settings

NUM_LOCAL = 5  # patches with the most class-token attention
MOMENTUM = 0.8  # share of a slot that a write keeps; fixed in the published code


@dataclass(frozen=True)
class TextRefinerSettings(Settings):
    """Keys of TRAINER.TF; the context's own keys stay under TRAINER.COOP."""

    BALANCE: float = 50.0  # divides the loss of the local features; 0 switches it off
    DISTILL: float = 20.0  # weighs the distance of refined to plain text features
    MEMORY_SIZE: int = 25
    ALPHA: float = 0.2  # weighs what is read from the memory
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = ("BALANCE", "DISTILL")

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        found = super().problems() + self.at_least(1, "MEMORY_SIZE")
        return found + self.at_least(0, "BALANCE", "DISTILL", "ALPHA")


class PointwiseMap(nn.Module):
    """Two linear layers on each token, BatchNorm and ReLU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Map tokens; the statistics are those of all tokens of the batch."""
        inner = self.norm(self.inner(at_least_float32(x)).flatten(0, 1)).relu()
        return self.outer(inner).unflatten(0, x.shape[:2])


class LocalMemory(nn.Module):
    """S slots of local image features, shared by all classes; random at the start."""

    def __init__(self, width: int, *, size: int, alpha: float) -> None:
        super().__init__()
        self.register_buffer("slots", unit(torch.rand(size, width)))
        self.extractor = nn.Linear(2 * width, width, bias=False)
        self.alpha = alpha

    def read(self, text: Float[Tensor, "C D"]) -> Float[Tensor, "C D"]:
        """Text features, and what they retrieve from the slots; not unit length."""
        found = (text @ self.slots.T).softmax(-1) @ self.slots
        return text + self.alpha * self.extractor(torch.cat([text, found], dim=-1))

    @torch.no_grad()
    def write(self, tokens: Float[Tensor, "B L D"]) -> None:
        """Write each token to its most similar slot; the token most similar to it counts 1."""
        token = unit(tokens).flatten(0, 1)  # (B * L, D)
        similarity = token @ self.slots.T  # (B * L, S)
        slot = similarity.argmax(-1)
        share = similarity.softmax(0)
        weight = (share / share.amax(0)).gather(1, slot.unsqueeze(1))  # (B * L, 1)
        total = torch.zeros_like(self.slots).index_add_(0, slot, weight * token)
        written = torch.zeros_like(self.slots[:, 0]).index_add_(0, slot, weight.squeeze(1)) > 0
        blended = MOMENTUM * self.slots + (1 - MOMENTUM) * total
        self.slots.copy_(unit(torch.where(written.unsqueeze(1), blended, self.slots)))


class TextRefinerModel(CoOpModel):
    """CoOp's prompts with a `PointwiseMap`, `local`, and a `LocalMemory`, `memory`; all learned."""

    step_patches = "raw"

    def __init__(
        self, clip: nn.Module, prompts: PromptLearner, *, balance: float, distill: float
    ) -> None:
        require_vit(clip.visual)
        super().__init__(clip, prompts)
        self.balance, self.distill = balance, distill

    def encode_text(self, cls: Float[Tensor, "B D"] | None = None) -> Float[Tensor, "C D"]:
        """Refined text features, not unit length."""
        text = super().encode_text(cls)
        with full_precision(text):
            return self.learned.memory.read(text)

    def local_rows(
        self, tokens: Float[Tensor, "B L D"], raw: VisualTokens
    ) -> Float[Tensor, "B K D"]:
        """Of the mapped tokens: the class token, the most attended patches, the mean of all."""
        attention = raw.cls_attention
        assert attention is not None  # the raw path was asked for
        top = attention.topk(min(NUM_LOCAL, attention.shape[1])).indices
        mean = tokens.mean(1, keepdim=True)
        return torch.cat([tokens[:, :1], gather_tokens(tokens[:, 1:], top), mean], dim=1)

    def step(self, image: Images, label: Int[Tensor, " B"]) -> Step:
        """The image against refined text, its local features against plain text."""
        raw = self.encode_raw(image, self.step_patches)
        plain = super().encode_text()
        with full_precision(plain):
            text = self.learned.memory.read(plain)
            logits = self.classify(unit(raw.cls), text)
            assert raw.patches is not None  # the raw path was asked for
            tokens = self.learned.local(torch.cat([raw.cls.unsqueeze(1), raw.patches], dim=1))
            losses = {"ce": F.cross_entropy(logits, label)}
            if self.balance:
                local = self.scale * self.local_rows(tokens, raw) @ plain.T  # (B, K, C)
                every = label.unsqueeze(1).expand(local.shape[:2])
                fit = F.cross_entropy(local.flatten(0, 1), every.flatten())
                losses["local"] = fit / self.balance
            if self.distill:
                losses["text"] = self.distill * F.l1_loss(unit(text), plain)
        return Step(logits, Target(label), losses, (tokens.detach(),))

    def update_memory(self, step: Step) -> None:
        """Write the mapped tokens of the batch."""
        self.learned.memory.write(*step.memory_inputs)


@register
class TextRefiner(CLIPTrainer):
    """TextRefiner with CoOp's prompts."""

    node = "TF"
    settings_class = TextRefinerSettings
    takes_features = True

    def check_cfg(self, cfg: CfgNode) -> None:
        """Check this trainer's keys and CoOp's."""
        super().check_cfg(cfg)
        self.context = context = read_settings(cfg, CoOp.node, CoOp.settings_class)
        if context.CSC or context.CLASS_TOKEN_POSITION != "end":
            raise ValueError(
                "TextRefiner has one context for all classes, before the name: TRAINER.COOP.CSC "
                f"must be False, got {context.CSC}, and CLASS_TOKEN_POSITION end, got "
                f"{context.CLASS_TOKEN_POSITION}"
            )

    def settings_read(self) -> dict[str, Settings]:
        """CoOp's, too."""
        return super().settings_read() | {CoOp.node: self.context}

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: TextRefinerSettings,
        run: BuildContext,
    ) -> TextRefinerModel:
        """CLIP with CoOp's prompts and the memory."""
        joint = clip.text_projection.shape[1]
        context = read_settings(run.cfg, CoOp.node, CoOpSettings)
        memory = LocalMemory(joint, size=settings.MEMORY_SIZE, alpha=settings.ALPHA)
        prompts = coop_prompts(clip, class_names, context)
        prompts.local, prompts.memory = PointwiseMap(joint), memory
        return TextRefinerModel(clip, prompts, balance=settings.BALANCE, distill=settings.DISTILL)
