"""CLIP as a classifier: image features against text features, times a temperature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.clip.blocks import at_least_float32, deep_prompts, freeze, full_precision, unit
from models.clip.image_tower import VisualTokens, build_visual_encoder, require_vit, stack
from models.clip.prune import LinearDiscriminant, Pruner, Recorder, TokenPruner, most_attended
from models.clip.text_tower import TextEncoder

AT_A_TIME = 8  # images on a CPU, where no gradient is kept

# Normalised pictures at the tower's resolution, or what the frozen tower has given of them: class
# tokens or all tokens, not unit length. `CLIPClassifier.encode_raw` takes any.
Images = Float[Tensor, "B 3 H W"] | Float[Tensor, "B D"] | VisualTokens


class Target(NamedTuple):
    """What a prediction is fitted to."""

    label: Int[Tensor, " B"]  # the teacher's choice where there is one
    logits: Float[Tensor, "B C"] | None = None  # the teacher's


class General(NamedTuple):
    """What a step must not forget: a second loss, whose gradient changes that of the first."""

    loss: Float[Tensor, ""]
    project: Callable[[Tensor, Tensor], Tensor]  # a parameter's gradient, and its general one


class Step(NamedTuple):
    """One forward pass of training."""

    logits: Float[Tensor, "B C"]
    target: Target
    losses: dict[str, Float[Tensor, ""]]  # their sum is minimised
    memory_inputs: tuple[Tensor, ...] = ()  # without gradient, for `TrainedModel.update_memory`
    text: Any = None  # text features (*B, C, D), where a loss may follow from them
    general: General | None = None


class TrainedModel(nn.Module):
    """What training, checkpoints and predictions use of a model: a tuner, or a head on one."""

    learned: Any  # the module that is trained and saved, or None
    head: Any  # what stands on the tuner, or None
    patch_path: str | None = None  # of the patches that logits need; see VisualEncoder

    def __init__(self) -> None:
        super().__init__()
        self.learned = self.head = None

    def learn(self, module: nn.Module) -> None:
        """Declare the part that is trained and saved."""
        self.learned = module
        module.register_load_state_dict_post_hook(self.clear_cache)

    @property
    def tuner(self) -> CLIPClassifier:
        """The prompt tuner: this model itself, or what the head stands on."""
        raise NotImplementedError

    def step(self, image: Images, label: Int[Tensor, " B"]) -> Step:
        """The forward pass of one training step."""
        raise NotImplementedError

    def update_memory(self, step: Step) -> None:
        """Called after the optimiser's step: a model with a memory writes to it here."""

    def identity(self) -> dict[str, str]:
        """What beside trainer and backbone must be the same where learned weights are loaded."""
        return {}

    def clear_cache(self, *_: object) -> None:
        """Drop what was kept for an evaluation."""

    def train(self, mode: bool = True) -> TrainedModel:
        """Set the mode and drop what was kept."""
        super().train(mode)
        self.clear_cache()
        return self


class CLIPClassifier(TrainedModel):
    """Frozen towers; a subclass says where the text features come from, and what is learned.

    In evaluation mode text features that do not depend on the image are computed once, until the
    mode is set again or weights are loaded.
    """

    text_depends_on_image = False
    learns_images = False  # gradients flow through the image tower
    step_patches: str | None = None  # path of the patches that a training step needs
    criterion_name = "ce"
    name: str  # of a teacher, tells it from others

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        freeze(clip)
        self.visual = build_visual_encoder(clip.visual)
        self.text = TextEncoder(clip)
        self.register_buffer("logit_scale", at_least_float32(clip.logit_scale.detach()).clone())
        self.register_buffer("rows", None, persistent=False)  # the classes that are evaluated
        self.pruner: TokenPruner | None = None
        self._text_features: Tensor | None = None

    @property
    def tuner(self) -> CLIPClassifier:
        """This model."""
        return self

    @property
    def scale(self) -> Float[Tensor, ""]:
        """exp(logit_scale)."""
        return self.logit_scale.exp()

    def prune(self, pruner: TokenPruner) -> None:
        """Drop patches, in training as at test; ValueError for a ResNet or a wrong schedule."""
        require_vit(self.visual.visual)
        last, most = self.visual.num_blocks - 2, self.visual.num_patches
        # The last block reads out the class token alone.
        if pruner.at and (pruner.at[-1] > last or pruner.keep[0] > most):
            raise ValueError(
                f"MODEL.PRUNE.AT must lie in 0..{last} and KEEP in 1..{most} for this backbone, "
                f"got {pruner.at} and {pruner.keep}"
            )
        self.pruner = pruner
        if self.learned is not None:
            self.learned.pruner = pruner  # what it has learned is saved with the rest

    @torch.no_grad()
    def collect_statistics(
        self, image: Float[Tensor, "B 3 H W"], statistics: list[LinearDiscriminant]
    ) -> None:
        """Count a batch of training images for the pruner; nothing is dropped meanwhile."""
        assert self.pruner is not None
        for part in image.split(AT_A_TIME):
            recorder = Recorder(self.pruner.at)
            attention = self.encode_tower(part, "value", recorder).cls_attention
            assert attention is not None  # a path was asked for
            selected = most_attended(attention)
            for one, patches in zip(statistics, recorder.patches, strict=True):
                one.add(patches, selected)

    def encode_text(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, "*B C D"]:
        """Text features of all classes, computed now; a leading axis B if they depend on `cls`."""
        raise NotImplementedError

    def text_features(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, "*B C D"]:
        """`encode_text`, kept while evaluating, and then of the evaluated classes alone."""
        if self.training:
            return self.encode_text(cls)
        if self._text_features is not None:
            return self._text_features
        text = self.encode_text(cls)
        text = text if self.rows is None else text[..., self.rows, :]
        self._text_features = None if self.text_depends_on_image else text
        return text

    def image_prompts(self) -> list[Float[Tensor, "M Wv"]]:
        """Learned prompts of the image tower's blocks 0, 1, ...; most tuners have none."""
        return []

    def encode_tower(
        self, image: Tensor, patch_path: str | None, pruner: Pruner | None
    ) -> VisualTokens:
        """The image tower with each block's prompts behind the patches; not unit length."""
        if not (prompts := self.image_prompts()):
            return self.visual(image, patch_path=patch_path, pruner=pruner)
        first, *deeper = prompts
        seam = deep_prompts(deeper, slice(-len(first), None))
        return self.visual(image, seam, patch_path, first, pruner)

    def encode_raw(self, image: Images, patch_path: str | None = None) -> VisualTokens:
        """`encode_tower`, with gradient only where it learns something; features stay as given."""
        if isinstance(image, VisualTokens):
            return image
        if image.dim() == 2:
            return VisualTokens(image)
        learns = self.learns_images and torch.is_grad_enabled()
        # Without gradient a CPU takes a few images at a time: less memory, no more time.
        whole = learns or image.device.type != "cpu"
        with torch.set_grad_enabled(learns):
            images = [image] if whole else image.split(AT_A_TIME)
            return stack([self.encode_tower(x, patch_path, self.pruner) for x in images])

    def features(self, raw: VisualTokens) -> VisualTokens:
        """Unit-length float32 features of what the image tower gave."""
        return raw.unit()

    def encode_image(self, image: Images, patch_path: str | None = None) -> VisualTokens:
        """Unit-length float32 features; `patch_path` as in VisualEncoder."""
        return self.features(self.encode_raw(image, patch_path))

    def classify(
        self, cls: Float[Tensor, "B D"], text: Float[Tensor, "*B C D"]
    ) -> Float[Tensor, "B C"]:
        """Cosine similarity times `scale`, float32."""
        with full_precision(cls):
            if text.dim() == 2:
                return self.scale * cls @ text.T
            return self.scale * (text @ cls.unsqueeze(-1)).squeeze(-1)

    def forward(self, image: Images) -> Float[Tensor, "B C"]:
        """Logits of pictures."""
        cls = self.encode_image(image).cls
        return self.classify(cls, self.text_features(cls))

    def target(self, image: Images, label: Int[Tensor, " B"]) -> Target:
        """What predictions of this batch are fitted to: the labels, if there is no teacher."""
        return Target(label)

    def criterion(self, logits: Float[Tensor, "B C"], target: Target) -> Float[Tensor, ""]:
        """How badly a prediction fits: cross-entropy."""
        return F.cross_entropy(logits, target.label)

    def regularisers(
        self, image: Images, cls: Tensor, text: Tensor, logits: Tensor
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses that hold a tuner near to plain CLIP; none for most tuners."""
        return {}

    def general(self, cls: Float[Tensor, "B D"], logits: Float[Tensor, "B C"]) -> General | None:
        """A second loss, which is not added to the others; most tuners have none."""
        return None

    def step(self, image: Images, label: Int[Tensor, " B"]) -> Step:
        """The forward pass of one training step."""
        cls = self.encode_image(image).cls
        text = self.text_features(cls)
        logits = self.classify(cls, text)
        target = self.target(image, label)
        losses = {self.criterion_name: self.criterion(logits, target)}
        losses |= self.regularisers(image, cls, text, logits)
        return Step(logits, target, losses, text=text, general=self.general(cls, logits))

    def clear_cache(self, *_: object) -> None:
        """Drop the text features that were kept for an evaluation."""
        self._text_features = None

    def train(self, mode: bool = True) -> CLIPClassifier:
        """Set the mode of the learned part; the towers always evaluate."""
        super().train(mode)
        self.visual.eval()
        self.text.eval()
        return self


class ZeroShotCLIP(CLIPClassifier):
    """CLIP with fixed sentences, equally many a class: the mean of their unit text features."""

    def __init__(self, clip: nn.Module, class_sentences: list[list[str]]) -> None:
        super().__init__(clip)
        templates = zip(*class_sentences, strict=True)  # (templates, C)
        by_template = [self.text.encode(list(sentences)) for sentences in templates]
        self.register_buffer("fixed", unit(torch.stack(by_template).mean(0)), persistent=False)

    def encode_text(self, cls: Float[Tensor, "B D"] | None = None) -> Float[Tensor, "C D"]:
        """The fixed features."""
        return self.fixed
