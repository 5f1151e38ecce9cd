"""Class weights in place of text features: a learned vector for each class of training."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.class_names import OfClasses, match_names
from models.classifier import CLIPClassifier
from models.clip.blocks import unit


class ClassVectors(OfClasses):
    """The learned `weight` of each class, and `text`, the class's own feature.

    `text` is saved, so that weights that were learned beside one sentence are used beside it.
    """

    by_class: tuple[str, ...] = ("weight", "text")

    def __init__(self, class_names: list[str], text: Float[Tensor, "C D"]) -> None:
        super().__init__()
        self.class_names = list(class_names)
        self.weight = nn.Parameter(text.clone())
        self.register_buffer("text", text.clone())


class ClassWeightsModel(CLIPClassifier):
    """CLIP whose text features are learned, class by class.

    A class that was not in training has its plain text feature, so that new classes alone are
    classified as by zero-shot CLIP.

    Args:
        class_sentences: equally many a class; its text feature is their mean.
        unit_length: whether learning begins at text features of unit length, else at CLIP's own.
            The longer the vectors, the less a step turns them.
    """

    vectors = ClassVectors

    def __init__(
        self, clip: nn.Module, class_names: list[str], class_sentences: list[list[str]], *,
        unit_length: bool = False,
    ) -> None:
        super().__init__(clip)
        templates = zip(*class_sentences, strict=True)
        raw = torch.stack([self.text.encode_raw(list(one)) for one in templates])  # (T, C, D)
        self.class_names = list(class_names)
        self.register_buffer("fixed", unit(unit(raw).mean(0)), persistent=False)
        self.learn(self.vectors(class_names, self.fixed if unit_length else raw.mean(0)))

    def class_features(self) -> Float[Tensor, "C D"]:
        """What stands in for the text features of the classes of training."""
        return unit(self.learned.weight)

    def encode_text(self, cls: Float[Tensor, "B D"] | None = None) -> Float[Tensor, "C D"]:
        """The learned features of this model's classes, and the plain ones of the others."""
        return self.listed(self.class_features(), self.fixed)

    def listed(
        self, learned: Float[Tensor, "C *D"], plain: Float[Tensor, "C2 *D"]
    ) -> Float[Tensor, "C2 *D"]:
        """Rows of this model's classes; `plain` has those of classes that were not in training."""
        known = self.learned.class_names
        if known == self.class_names:
            return learned
        place = torch.tensor(match_names(self.class_names, known), device=learned.device)
        seen = (place >= 0).view(-1, *[1] * (learned.dim() - 1))
        return torch.where(seen, learned[place], plain)
