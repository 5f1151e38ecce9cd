"""A trained model for other programs: pictures in, class names and kept patches out.

from inference.predictor import SpotlighterPredictor

predictor = SpotlighterPredictor.from_run("output/my_run")
for found in predictor.predict(["a.jpg", "b.jpg"]):
    print(found.class_name, found.probability, found.keep_indices)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from models.spotlighter.model import SpotlightedCLIP
from models.spotlighter.select import whole_map

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer

Picture = str | Path | Image.Image | Tensor
"""A file, a picture, or a tensor (3, H, W) or (1, H, W) of floating point numbers in 0..1."""


class Prediction(NamedTuple):
    """What the model predicts for one picture."""

    class_name: str
    probability: float
    """In 0..1; the probabilities of all classes sum to 1."""
    top: list[tuple[str, float]]
    """The likeliest classes and their probabilities, best first."""
    keep_indices: list[int] | None = None
    """Kept patches, best first: their places in the picture as the model sees it, row by row from
    0. None for models that select no patches; so are both maps."""
    sample_wise: Float[Tensor, " N"] | None = None
    """Relevance of each of the N patches to this picture, standardised; nan where a pruned tower
    dropped the patch."""
    semantic_wise: Float[Tensor, " N"] | None = None
    """Relevance of each patch to the class names; likewise."""
    unsure: bool = False
    """Whether the probability lies below the threshold that was asked for."""


class SpotlighterPredictor:
    """Classifies pictures with a trained model, of any trainer; `from_run` opens one.

    Attributes:
        model: (B, 3, H, W) -> logits (B, C).
        class_names: C names, in the order of the logits.
        num_patches: N, patches of a picture (a square, row by row); None where none are selected.
        level1: kept patches of the first level, those of best rank; None likewise.
        trainer_name: what was trained, as "CoOp" or "Spotlighter on CoOp".
        trainer_class: its class, which says what it learns (`learns`, `new_classes`).
        data: name of the data that it was trained on.
    """

    def __init__(self, trainer: CLIPTrainer) -> None:
        # Imported here, so that this module needs no engine until there is a run to open.
        from dassl.data.transforms import build_transform

        from datasets.pictures import open_picture

        cfg, model = trainer.cfg, trainer.model
        self.model, self.class_names = model, list(trainer.class_names)
        base = trainer.tuner[0]
        head_on = "" if isinstance(trainer, base) else f" on {base.__name__}"
        self.trainer_name, self.trainer_class = f"{cfg.TRAINER.NAME}{head_on}", type(trainer)
        self.data = cfg.DATASET.LABEL or cfg.DATASET.NAME
        self._read = partial(open_picture, upright=cfg.INPUT.EXIF != "stored")
        self._view: Any = build_transform(cfg, is_train=False, choices=())
        self._transform: Any = build_transform(cfg, is_train=False)
        self._size = max(cfg.INPUT.SIZE)
        self._temperature = cfg.TEST.TEMPERATURE
        self._device, self._autocast = trainer.device, trainer.state.precision.autocast
        self.num_patches: int | None = None
        self.level1: int | None = None
        if isinstance(model, SpotlightedCLIP):
            self.num_patches, self.level1 = model.base.visual.num_patches, model.head.options.level1

    @classmethod
    def from_run(
        cls, path: str | Path, class_names: Sequence[str] | None = None, *, new: str = "",
        root: str | Path = "", zero_shot: bool = False,
    ) -> SpotlighterPredictor:
        """Open the output folder of a training run; the run's data set need not be there.

        Args:
            path: the folder, with config.yaml and the checkpoint.
            class_names: any other classes than those of the run.
            new: how Spotlighter treats class names that were not in training: "inherit" reuses
                prototypes of similar classes, "text" uses their text only, "auto" whichever of
                the two did better on held-out training classes, "off" the prompts only, "" what
                the run's config says.
            root: folder of all data sets. Needed only for a run without a checkpoint (zero-shot
                CLIP) whose results do not name its classes.
            zero_shot: CLIP as it was before the run, with its backbone and preprocessing.

        Raises:
            FileNotFoundError: the folder holds no run, or no checkpoint.
            ValueError: the checkpoint does not fit; `new` is unknown; a class-specific context
                has no vectors for other classes.
        """
        from inference.open import open_without_data

        trainer = open_without_data(path, class_names, new=new, root=str(root), zero_shot=zero_shot)
        return cls(trainer)

    def predict(
        self, images: Picture | Sequence[Picture], *, topk: int = 5, batch_size: int = 32,
        threshold: float = 0.0,
    ) -> list[Prediction]:
        """Classify one picture or several, of any size; they are resized and cut as at test.

        A tensor (B, 3, H, W) is several. Tensors are rounded to 8 bits a channel, so that a picture
        and its tensor give the same. `topk` is the number of entries of `Prediction.top`. A top
        probability below `threshold`, in 0..1, makes a prediction `unsure`. Raises a
        FileNotFoundError for a missing file, a ValueError for a file that is no picture, a tensor
        of another shape or range, a threshold outside 0..1, or scores that are no numbers.
        """
        if topk < 1 or batch_size < 1:
            raise ValueError(f"topk and batch_size must be at least 1, got {topk} and {batch_size}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is a probability and must lie in 0..1, got {threshold}")
        several = one_by_one(images)
        found: list[Prediction] = []
        for first in range(0, len(several), batch_size):
            found += self._predictions(several[first : first + batch_size], topk)
        return [one._replace(unsure=one.probability < threshold) for one in found]

    def open(self, image: Picture) -> Image.Image:
        """One picture in RGB; raises what `predict` raises."""
        if isinstance(image, Image.Image):
            return image.convert("RGB")
        return to_picture(image) if isinstance(image, Tensor) else self._read(image)

    def seen(self, image: Picture) -> Float[Tensor, "H W 3"]:
        """A picture as the model sees it, to draw patches on: resized and cut, in 0..1."""
        return self._view(self.open(image)).permute(1, 2, 0)

    def seen_square(self, image: Picture) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what the model sees, in pixels of the picture itself.

        The test transform resizes a picture by its short side and cuts the centre out.
        """
        size, (width, height) = self._size, self.open(image).size

        def span(length: int) -> tuple[float, float]:
            resized = size * length // min(width, height)
            start = round((resized - size) / 2)
            return start * length / resized, (start + size) * length / resized

        (left, right), (top, bottom) = span(width), span(height)
        return left, top, right, bottom

    def prepare(self, images: Sequence[Picture]) -> Float[Tensor, "B 3 H W"]:
        """Pictures as the model takes them: resized, cut, normalised, on its device."""
        return torch.stack([self._transform(self.open(image)) for image in images]).to(self._device)

    @torch.no_grad()
    def _predictions(self, images: Sequence[Picture], topk: int) -> list[Prediction]:
        batch = self.prepare(images)
        with self._autocast():
            out = self.model.forward_all(batch) if self.num_patches else None
            logits = self.model(batch) if out is None else out.logits
        if not torch.isfinite(logits).all():
            raise ValueError(
                "the scores of a picture are infinite or not a number, so there is no prediction; "
                "PREC fp32 or bf16 in the run's config.yaml helps where fp16 is too small"
            )
        shares = (logits.float() / self._temperature).softmax(-1)
        # Of equal scores the first class is taken, as in an evaluation.
        best = logits.argsort(descending=True, stable=True)[:, :topk]
        pairs = zip(best.tolist(), shares.gather(1, best).tolist(), strict=True)
        tops = [[(self.class_names[c], p) for c, p in zip(*pair, strict=True)] for pair in pairs]
        if out is None:
            return [Prediction(*top[0], top) for top in tops]
        sample_wise, semantic_wise = (
            whole_map(score, out.tokens.positions, self.num_patches or 0).cpu()
            for score in (out.head.sample_wise, out.head.semantic_wise)
        )
        kept = out.head.selection.indices.tolist()
        rows = zip(tops, kept, sample_wise, semantic_wise, strict=True)
        return [Prediction(*top[0], top, *chosen) for top, *chosen in rows]


def one_by_one(images: Picture | Sequence[Picture]) -> list[Picture]:
    """One picture, several, or a batch -> a list."""
    if isinstance(images, Tensor) and images.dim() == 4:
        return list(images)
    return [images] if isinstance(images, Picture) else list(images)


def to_picture(pixels: Tensor) -> Image.Image:
    """A tensor (3, H, W) or (1, H, W) of numbers in 0..1 as a picture; else a ValueError."""
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
