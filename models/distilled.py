"""A student image tower that learns a teacher's predictions (PromptKD)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.blocks import freeze
from models.classifier import CLIPClassifier, Target
from models.independent_prompts import VisualPrompts, see_with_prompts
from models.precision import at_least_float32
from models.token_pruning import Pruner
from models.visual_encoder import VisualEncoder, VisualTokens, require_blocks


class Projector(nn.Module):
    """From the student's joint space to the teacher's: linear, BatchNorm, ReLU, linear.

    The published 1x1 convolutions on one position are linear layers.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width_in, width_out)
        self.norm = nn.BatchNorm1d(width_out)
        self.outer = nn.Linear(width_out, width_out)

    def forward(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, "B Dt"]:
        """Map image features; in training the batch's statistics count and are remembered."""
        return self.outer(self.norm(self.inner(at_least_float32(cls))).relu())

    def patchwise(self, patches: Float[Tensor, "B N D"]) -> Float[Tensor, "B N Dt"]:
        """Map patches by the same weights and the remembered statistics, which stay as they are."""
        x, norm = self.inner(at_least_float32(patches)), self.norm
        x = F.batch_norm(
            x.flatten(0, 1), norm.running_mean, norm.running_var, norm.weight, norm.bias
        )
        return self.outer(x.relu()).unflatten(0, patches.shape[:2])


class StudentPrompts(VisualPrompts):
    """What the student learns: prompts of the image tower's blocks, and the projector.

    Source: PromptKD (Li et al., CVPR 2024), section 3, https://arxiv.org/abs/2403.02781
    """

    def __init__(self, depth: int, vision_shape: tuple[int, int], projector: Projector) -> None:
        """Start at random.

        Args:
            depth: blocks with prompts of their own, 0 or more.
            vision_shape: (M, Wv), of the prompts.
            projector: to the teacher's joint space.
        """
        super().__init__(depth, vision_shape)
        self.projector = projector


class DistilledCLIP(CLIPClassifier):
    """The student's image tower against the teacher's text features.

    Sentences are the teacher's to encode: everything lives in its joint space. Labels are not used.
    """

    learns_images = True
    criterion_name = "kd"

    visual: VisualEncoder

    def __init__(
        self,
        clip: nn.Module,
        prompts: StudentPrompts,
        teacher: CLIPClassifier,
        *,
        rows: Int[Tensor, " C"] | None = None,
        weight: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        """Put the prompts on the student and the teacher beside it.

        Args:
            clip: the student; its text tower is not used.
            prompts: what is learned.
            teacher: knows the classes; its text must not depend on the image. `teacher.name` tells
                it from others.
            rows: positions of the evaluated classes among the teacher's; None for all.
            weight: of the divergence.
            temperature: of both predictions, above 0.

        Raises:
            ValueError: the image tower is no ViT or has too few blocks; the teacher's text depends
                on the image.
        """
        super().__init__(clip)
        require_blocks(self.visual, len(prompts.vision), "PROMPTKD.PROMPT_DEPTH_VISION")
        if teacher.text_depends_on_image:
            raise ValueError(
                "a CoCoOp teacher makes text features for each image, and a PromptKD student needs "
                "fixed ones; choose a teacher of another trainer (TRAINER.PROMPTKD.TEACHER_DIR)"
            )
        self.teacher, self.text = freeze(teacher), teacher.text
        self._teacher_text: Tensor | None = None
        self.rows = rows
        self.weight, self.temperature = weight, temperature
        self.learn(prompts)

    def identity(self) -> dict[str, str]:
        """The projector fits one teacher's joint space."""
        return {"teacher": self.teacher.name}

    def see(self, image: Tensor, patch_path: str | None, pruner: Pruner | None) -> VisualTokens:
        """The student's tower, seen through the projector."""
        seen = see_with_prompts(self.visual, self.learned.vision, image, patch_path, pruner)
        projector = self.learned.projector
        patches = None if seen.patches is None else projector.patchwise(seen.patches)
        return seen._replace(cls=projector(seen.cls), patches=patches)

    def encode_text(self, cls: Float[Tensor, "B D"] | None = None) -> Float[Tensor, "C D"]:
        """The teacher's text features, computed once for good."""
        if self._teacher_text is None:
            with torch.no_grad():
                self._teacher_text = self.teacher.encode_text(cls)
        return self._teacher_text

    @torch.no_grad()
    def target(self, image: Tensor, label: Int[Tensor, " B"]) -> Target:
        """The teacher's prediction, and its choice in place of the label."""
        cls = self.teacher.encode_image(image).cls
        logits = self.teacher.classify(cls, self.encode_text())
        return Target(logits.argmax(-1), logits)

    def criterion(self, logits: Float[Tensor, "B C"], target: Target) -> Float[Tensor, ""]:
        """T^2 KL(teacher || student) at temperature T, mean over images and classes."""
        t = self.temperature
        assert target.logits is not None  # see `target`
        divergence = F.kl_div(
            (logits / t).log_softmax(-1),
            (target.logits / t).log_softmax(-1),
            reduction="sum",
            log_target=True,
        )
        return self.weight * t**2 * divergence / logits.numel()

    def train(self, mode: bool = True) -> DistilledCLIP:
        """Set the mode of the learned part; the teacher always evaluates."""
        super().train(mode)
        self.teacher.train(False)
        return self
