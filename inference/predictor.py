"""A trained model as other programs use it: pictures in, class names and what was looked at out.

from inference.predictor import SpotlighterPredictor

predictor = SpotlighterPredictor.from_run("output/my_run")
for found in predictor.predict(["a.jpg", "b.jpg"]):
    print(found.class_name, found.probability, found.keep_indices)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from models.spotlighter.model import SpotlightedCLIP
from models.spotlighter.select import whole_map

Picture = str | Path | Image.Image | Tensor
"""A file, a picture, or a tensor (3, H, W) or (1, H, W) of floating point numbers in 0..1."""


class Prediction(NamedTuple):
    """What the model says of one picture."""

    class_name: str
    probability: float
    """In 0..1; the probabilities of all classes sum to 1."""
    top: list[tuple[str, float]]
    """The likeliest classes and their probabilities, best first."""
    keep_indices: list[int] | None = None
    """Kept patches, best first: their places in the picture as the model sees it, row by row from
    0. None for models that select no patches; so are both maps."""
    sample_wise: Float[Tensor, " N"] | None = None
    """How much this picture speaks for each of its N patches, standardised; nan where a pruned
    tower dropped the patch."""
    semantic_wise: Float[Tensor, " N"] | None = None
    """How much the classes speak for each patch; likewise."""


class SpotlighterPredictor:
    """Classifies pictures with a trained model, of Spotlighter or of any other trainer.

    Attributes:
        class_names: C names, in the order of the model's logits.
        num_patches: N, patches of a picture (a square, row by row); None where none are selected.
        level1: kept patches of the first level, those of best rank; None likewise.
    """

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        *,
        read: Callable[[Any], Image.Image],
        view: Callable[[Image.Image], Tensor],
        transform: Callable[[Image.Image], Tensor],
        device: torch.device | str = "cpu",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """Put a model to use; `from_run` does it for the folder of a run.

        Args:
            model: (B, 3, H, W) -> logits (B, C).
            class_names: C names.
            read: from a path to an RGB picture; raises OSError or ValueError where there is none.
            view: from an RGB picture to the part that is seen, (3, H, W) in 0..1.
            transform: from an RGB picture to what the model takes, (3, H, W).
            device: where the model is.
            autocast: context of a forward pass.
        """
        self.model, self.class_names = model.eval(), list(class_names)
        self._read, self._view, self._transform = read, view, transform
        self._device, self._autocast = torch.device(device), autocast
        self.num_patches: int | None = None
        self.level1: int | None = None
        if isinstance(model, SpotlightedCLIP):
            self.num_patches = model.base.visual.num_patches
            self.level1 = model.head.options.level1

    @classmethod
    def from_run(
        cls,
        path: str | Path,
        class_names: Sequence[str] | None = None,
        *,
        new: str = "",
        root: str | Path = "",
    ) -> SpotlighterPredictor:
        """Open the output folder of a training run; the run's data set need not be there.

        Args:
            path: the folder, with config.yaml and the checkpoint.
            class_names: any other classes than those of the run.
            new: what classes get that the bank has not seen: "inherit" the offsets of seen ones,
                "text" (their text feature alone), "off" (nothing: the prompts decide); "" does what
                the run's config says. Spotlighter only.
            root: folder of all data sets. Needed only for a run without a checkpoint (zero-shot
                CLIP) whose results do not name its classes.

        Raises:
            FileNotFoundError: the folder holds no run, or no checkpoint.
            ValueError: the checkpoint does not fit; `new` is unknown; a class-specific context
                cannot meet other classes.
        """
        # Imported here, so that this module needs no engine until there is a run to open.
        from inference.open import for_predictor, open_without_data

        trainer = open_without_data(path, class_names, new=new, root=str(root))
        return cls(**for_predictor(trainer))

    @classmethod
    def zero_shot(
        cls, path: str | Path, class_names: Sequence[str] | None = None
    ) -> SpotlighterPredictor:
        """CLIP as it was before a run: its backbone, its preprocessing, nothing learned.

        Args:
            path: as of `from_run`.
            class_names: any other classes than those of the run.
        """
        from inference.open import for_predictor, open_without_data

        return cls(**for_predictor(open_without_data(path, class_names, zero_shot=True)))

    @torch.no_grad()
    def predict(
        self, images: Picture | Sequence[Picture], *, topk: int = 5, batch_size: int = 32
    ) -> list[Prediction]:
        """Classify pictures.

        Pictures of any size are resized and cut as at test. Tensors are rounded to 8 bits a
        channel, so that a picture and its tensor give the same.

        Args:
            images: one picture or several; a tensor (B, 3, H, W) is several.
            topk: entries of `Prediction.top`, all classes if there are fewer.
            batch_size: pictures that the model sees at a time.

        Returns:
            One prediction a picture, in their order.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is no picture, a tensor has another shape or range, or scores are no
                numbers.
        """
        if topk < 1 or batch_size < 1:
            raise ValueError(f"topk and batch_size must be at least 1, got {topk} and {batch_size}")
        found: list[Prediction] = []
        several = one_by_one(images)
        for first in range(0, len(several), batch_size):
            chunk = [self.open(image) for image in several[first : first + batch_size]]
            batch = torch.stack([self._transform(image) for image in chunk])
            found += self._told(batch.to(self._device), topk)
        return found

    def open(self, image: Picture) -> Image.Image:
        """One picture as a picture in RGB.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is no picture, or a tensor has another shape or range.
        """
        if isinstance(image, Image.Image):
            return image.convert("RGB")
        return to_picture(image) if isinstance(image, Tensor) else self._read(image)

    def seen(self, image: Picture) -> Float[Tensor, "H W 3"]:
        """A picture as the model sees it, to draw patches on: resized and cut, in 0..1."""
        return self._view(self.open(image)).permute(1, 2, 0)

    def _told(self, batch: Tensor, topk: int) -> Iterator[Prediction]:
        """Predictions of a batch, as plain numbers and tensors of the CPU."""
        with self._autocast():
            out = self.model.forward_all(batch) if self.num_patches else None
            logits = self.model(batch) if out is None else out.logits
        if not torch.isfinite(logits).all():
            raise ValueError(
                "the scores of a picture are infinite or not a number, so there is no prediction; "
                "PREC fp32 or bf16 in the run's config.yaml helps where fp16 is too small"
            )
        best = logits.float().softmax(-1).topk(min(topk, len(self.class_names)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        tops = [[(self.class_names[c], p) for c, p in zip(*pair, strict=True)] for pair in pairs]
        looked_at: Iterator[Any] = repeat(())
        if out is not None:
            maps = (
                whole_map(score, out.tokens.positions, self.num_patches or 0).cpu()
                for score in (out.head.sample_wise, out.head.semantic_wise)
            )
            looked_at = zip(out.head.selection.indices.tolist(), *maps, strict=True)
        for top, looked in zip(tops, looked_at, strict=False):
            yield Prediction(*top[0], top, *looked)


def one_by_one(images: Picture | Sequence[Picture]) -> list[Picture]:
    """One picture, several, or a batch -> a list."""
    if isinstance(images, Tensor) and images.dim() == 4:
        return list(images)
    if isinstance(images, str | Path | Image.Image | Tensor):
        return [images]
    return list(images)


def to_picture(pixels: Tensor) -> Image.Image:
    """A tensor (3, H, W) or (1, H, W) of numbers in 0..1 as a picture.

    Raises:
        ValueError: it has another shape, kind or range.
    """
    fits = pixels.dim() == 3 and pixels.shape[0] in (1, 3) and pixels.is_floating_point()
    if not fits or not pixels.numel() or not (pixels.min() >= 0 and pixels.max() <= 1):
        kind = f"{tuple(pixels.shape)} of {str(pixels.dtype).removeprefix('torch.')}"
        span = f" in {pixels.min():g}..{pixels.max():g}" if pixels.numel() else ""
        raise ValueError(
            "a tensor must be (3, H, W), (1, H, W) or (B, 3, H, W), floating point numbers in 0..1 "
            f"that are not normalised yet, got {kind}{span}"
        )
    eight_bits = (pixels.float() * 255).round().to(torch.uint8).cpu().permute(1, 2, 0)  # (H, W, C)
    return Image.fromarray(eight_bits.squeeze(-1).numpy()).convert("RGB")
