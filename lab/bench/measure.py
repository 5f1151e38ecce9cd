"""Training steps and evaluated batches: build both forms, check them, time them, count them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from lab.bench.backbones import Schedule, image_size, load_backbone, tower_size
from lab.bench.clock import Clock, Work
from lab.bench.flops import MatrixProduct, count_gflop
from lab.bench.memory import extra_mb
from lab.bench.names import class_names
from lab.bench.pairs import EXACT, Pair, build_ours, build_pair, relative_error, require_equal
from lab.bench.rows import Row
from lab.bench.slices import NOTE, SLICE, fits, sliced
from lab.bench.works import (
    classifier,
    published_classifier,
    published_step,
    training_step,
    zero_shot,
)
from runs.precision import Precision

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CHECKED = 2  # images whose logits are compared
PRODUCT = "matrix product"
FORMS = ("zero-shot", "published", "ours")


@dataclass
class Bench:
    """One backbone on one device, and how to measure on it.

    Args:
        backbone: see `backbones.load_backbone`.
        dtype: of our image tower, a key of `DTYPES`; the published forms stay in float32.
        device: "cpu", "cuda" or "cuda:1".
        threads: of a CPU.
        seed: of weights and pictures.
        clock: see `Clock`.
        counts: whether memory and operations are measured, too: two calls more.
        compile: a backend of torch.compile: evaluation is timed with and without.
        tell: takes what happens, for a progress bar.
    """

    backbone: str = "ViT-B/16"
    dtype: str = "float32"
    device: str = "cpu"
    threads: int = 1
    seed: int = 0
    clock: Clock = field(default_factory=Clock)
    counts: bool = True
    compile: str = ""
    tell: Callable[[str], object] = lambda _: None

    def __post_init__(self) -> None:
        torch.set_num_threads(self.threads)
        self.clip = load_backbone(self.backbone, self.seed).to(self.device)
        self.clip.requires_grad_(False)
        self.clock = replace(self.clock, device=self.device)

    def told(self, tell: Callable[[str], object]) -> Bench:
        """The bench itself, which now tells this one."""
        self.tell, self.clock = tell, self.clock.told(tell)
        return self

    def images(self, batch: int) -> Tensor:
        """Normal numbers in the shape of normalised pictures."""
        size = image_size(self.clip.visual)
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(batch, 3, size, size, generator=generator).to(self.device)

    def row(self, command: str, trainer: str, form: str, classes: int, batch: int) -> Row:
        """What is known before the clock runs."""
        return Row(
            command=command,
            trainer=trainer,
            form=form,
            backbone=self.backbone,
            image_size=image_size(self.clip.visual),
            classes=classes,
            batch=batch,
            dtype=self.dtype if form == "ours" else "float32",
            device=self.device,
            threads=self.threads,
            tokens=tower_size(self.clip.visual)[1],
        )

    def pair(
        self, name: str, classes: int, forms: Sequence[str] = FORMS
    ) -> tuple[Pair, float | None]:
        """Both forms, and their largest relative difference where both are timed and are equal."""
        self.tell("building both forms")
        pair = build_pair(name, self.clip, class_names(classes), copies=self.dtype != "float32")
        error = None
        if name in EXACT and {"published", "ours"} <= set(forms):
            self.tell("checking that both forms agree")
            error = relative_error(pair, self.images(CHECKED))
            require_equal(name, error)
        self.cast(pair.ours)
        return pair, error

    def cast(self, model: nn.Module) -> nn.Module:
        """The model with its image tower in the chosen dtype."""
        if self.dtype == "bfloat16":
            Precision("bf16", model, torch.device(self.device))
        return model

    def ours(self, name: str, names: Sequence[str], schedule: Schedule | None) -> nn.Module:
        """Our form in the chosen dtype, on a CLIP of its own if need be."""
        clip = self.clip if self.dtype == "float32" else copy.deepcopy(self.clip)
        return self.cast(build_ours(name, clip, names, schedule))

    # Commands

    def train(self, name: str, classes: int, batch: int, forms: Sequence[str] = FORMS) -> list[Row]:
        """Training steps of a published form and of ours, in turns."""
        pair, error = self.pair(name, classes, forms)
        images = self.images(batch)
        labels = torch.arange(batch, device=self.device) % classes
        whole = fits(pair.published, batch if name == "CoCoOp" else 1, self.device)
        form = pair.published if whole else sliced(pair.published)
        works = {
            "published": published_step(form, images, labels),
            "ours": training_step(pair.ours, images, labels),
        }
        rows = {key: self.row("train", name, key, classes, batch) for key in works}
        rows["published"] = replace(rows["published"], note="" if whole else NOTE)
        rows["ours"] = replace(rows["ours"], max_error=error)
        return self.finish({key: row for key, row in rows.items() if key in forms}, works)

    def evaluate(
        self,
        name: str,
        classes: int,
        batch: int,
        schedules: Sequence[Schedule] = (),
        forms: Sequence[str] = FORMS,
    ) -> list[Row]:
        """Batches of zero-shot CLIP, of a published form, of ours, of ours pruned, in turns."""
        pair, error = self.pair(name, classes, forms)
        names, images = class_names(classes), self.images(batch)
        # CoCoOp encodes the text for each image: one of them costs as much as each of many.
        seen = images[:1] if name == "CoCoOp" else images
        works = {
            "zero-shot": partial(zero_shot(self.clip, names), images),
            "published": partial(published_classifier(pair.published), seen),
            "ours": partial(classifier(pair.ours), images),
        }
        rows = {key: self.row("eval", name, key, classes, batch) for key in works}
        note = NOTE if classes > SLICE else ""
        rows["published"] = replace(rows["published"], batch=len(seen), note=note)
        rows["ours"] = replace(rows["ours"], max_error=error)
        for schedule in schedules if "ours" in forms else ():
            key = f"ours, {schedule}"
            works[key] = partial(classifier(self.ours(name, names, schedule)), images)
            rows[key] = rows["ours"].pruned(schedule)
        if self.compile and "ours" in forms:
            model = self.ours(name, names, None)
            model.tuner.visual.compile(backend=self.compile)
            works["ours, compiled"] = partial(classifier(model), images)
            rows["ours, compiled"] = replace(rows["ours"], note=f"compiled: {self.compile}")
        chosen = {key: row for key, row in rows.items() if key.split(",")[0] in forms}
        return self.finish(chosen, works)

    # Measurement

    def finish(self, rows: Mapping[str, Row], works: Mapping[str, Work]) -> list[Row]:
        """Time works, put the times into their rows, compare them, count, sign."""
        batch = max(row.batch for row in rows.values())
        products = {}
        if self.counts:
            dtypes = {row.dtype for row in rows.values()}
            made = {key: MatrixProduct(self.clip.visual, batch, DTYPES[key]) for key in dtypes}
            products = {f"{PRODUCT}, {key}": product for key, product in made.items()}
        timings = self.clock.compare({**works, **products})
        rates = {key: work.gflop / timings[key].median for key, work in products.items()}
        found = {key: row.timed(timings[key], row.batch) for key, row in rows.items()}
        found = {key: compared(row, found) for key, row in found.items()}
        if self.counts:
            self.tell("counting operations and memory")
            for key, row in found.items():
                counted = row.counted(count_gflop(works[key]), rates[f"{PRODUCT}, {row.dtype}"])
                found[key] = replace(counted, extra_mb=extra_mb(works[key], self.device))
        return [row.signed() for row in found.values()]


def compared(row: Row, rows: Mapping[str, Row]) -> Row:
    """The row with its ratios to the published form and to zero-shot CLIP, image for image."""
    rate = row.images_per_s
    ratios = {
        name: rate / rows[key].images_per_s
        for name, key in (("speedup", "published"), ("against_zero_shot", "zero-shot"))
        if key in rows
    }
    return replace(row, **ratios)
