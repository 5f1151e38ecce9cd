"""CLIP as a classifier: image features against text features, times a temperature."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.blocks import freeze, unit
from models.precision import autocast, full_precision
from models.prompt_learner import PromptLearner
from models.text_encoder import TextEncoder
from models.visual_encoder import VisualTokens, build_visual_encoder


class CLIPClassifier(nn.Module):
    """Frozen towers; a subclass says where the text features come from.

    `text_features` are computed once per evaluation: kept from the first call in evaluation mode
    until the mode is set again or weights are loaded.
    """

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.learned: nn.Module | None = None  # the part that is trained and saved
        freeze(clip)
        self.visual = build_visual_encoder(clip.visual)
        self.text = TextEncoder(clip)
        self.register_buffer("logit_scale", clip.logit_scale.detach().float().clone())
        self.image_dtype: torch.dtype | None = None  # autocast of the image tower
        self._text_features: Tensor | None = None

    @property
    def scale(self) -> Float[Tensor, ""]:
        """exp(logit_scale)."""
        return self.logit_scale.exp()

    def encode_text(self) -> Float[Tensor, "C D"]:
        """Unit-length text features of all classes, computed now."""
        raise NotImplementedError

    def text_features(self) -> Float[Tensor, "C D"]:
        """`encode_text`, kept while evaluating."""
        if self.training:
            return self.encode_text()
        if self._text_features is None:
            self._text_features = self.encode_text()
        return self._text_features

    def encode_image(
        self, image: Float[Tensor, "B 3 H W"], patch_path: str | None = None
    ) -> VisualTokens:
        """Unit-length image features; no gradient, for nothing in the tower is learned."""
        with torch.no_grad(), autocast(image, self.image_dtype):
            return self.visual(image, patch_path=patch_path)

    def classify(
        self, cls: Float[Tensor, "B D"], text: Float[Tensor, "C D"]
    ) -> Float[Tensor, "B C"]:
        """Cosine similarity times `scale`, float32."""
        with full_precision(cls):
            return self.scale * cls @ text.T

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Logits of normalised pictures at the tower's resolution."""
        return self.classify(self.encode_image(image).cls, self.text_features())

    def forget(self, *_: object) -> None:
        """Drop what was kept for an evaluation."""
        self._text_features = None

    def train(self, mode: bool = True) -> CLIPClassifier:
        """Set the mode of the learned part; the towers always evaluate."""
        super().train(mode)
        self.visual.eval()
        self.text.eval()
        self.forget()
        return self


class PromptedCLIP(CLIPClassifier):
    """CLIP whose text features come from learned prompts (CoOp)."""

    def __init__(self, clip: nn.Module, prompts: PromptLearner) -> None:
        super().__init__(clip)
        self.learned = prompts
        prompts.register_load_state_dict_post_hook(self.forget)

    def encode_text(self) -> Float[Tensor, "C D"]:
        """Encode the prompts as they are now."""
        return unit(self.text(self.learned(), self.learned.eos))


class ZeroShotCLIP(CLIPClassifier):
    """CLIP with fixed sentences: the mean of the unit text features of each class's sentences."""

    def __init__(self, clip: nn.Module, class_sentences: list[list[str]]) -> None:
        """Encode once.

        Args:
            clip: the model.
            class_sentences: one list of sentences a class, all of the same length.
        """
        super().__init__(clip)
        templates = zip(*class_sentences, strict=True)  # (templates, C)
        by_template = [self.text.encode(list(sentences)) for sentences in templates]
        self.register_buffer("fixed", unit(torch.stack(by_template).mean(0)), persistent=False)

    def encode_text(self) -> Float[Tensor, "C D"]:
        """The fixed features."""
        return self.fixed
