"""Training steps and evaluated batches: build both forms, check them, time them, count them."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from lab.bench import EXACT, FORMS, STORED
from lab.bench.backbones import Schedule, load_backbone, made_up_names, tower_size
from lab.bench.clock import REPORT, Clock, Work
from lab.bench.counts import MatrixProduct, count_gflop, extra_mb
from lab.bench.forms import Pair, build_ours, build_pair, relative_error, require_equal
from lab.bench.rows import Row, timed_rows
from lab.bench.works import (
    NOTE,
    SLICE,
    at_hand,
    classifier,
    fits,
    published_classifier,
    published_step,
    sliced,
    training_step,
    zero_shot,
)
from runs.precision import Precision

CHECKED = 2  # images whose logits are compared


@dataclass
class Bench:
    """One backbone on one device, and how to measure on it."""

    backbone: str = "ViT-B/16"
    dtype: str = "float32"  # of our image tower; the published forms stay in float32
    device: str = "cpu"  # or "cuda", "cuda:1"
    threads: int = 1  # of a CPU
    seed: int = 0  # of weights and pictures
    clock: Clock = field(default_factory=Clock)
    counts: bool = True  # measure memory and operations, too: two calls more
    compile: str = ""  # a backend of torch.compile: evaluation is timed with and without

    def __post_init__(self) -> None:
        torch.set_num_threads(self.threads)
        self.clip = load_backbone(self.backbone, self.seed).to(self.device)
        self.clip.requires_grad_(False)
        self.clock = replace(self.clock, device=self.device)

    def images(self, batch: int) -> Tensor:
        """Normal numbers in the shape of normalised pictures."""
        size = self.clip.visual.input_resolution
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(batch, 3, size, size, generator=generator).to(self.device)

    def row(self, command: str, trainer: str, form: str, classes: int | None, batch: int) -> Row:
        """The conditions of a measurement."""
        return Row(
            command=command,
            trainer=trainer,
            form=form,
            backbone=self.backbone,
            image_size=self.clip.visual.input_resolution,
            classes=classes,
            batch=batch,
            dtype=self.dtype if form in ("ours", STORED) else "float32",
            device=self.device,
            threads=self.threads,
            tokens=tower_size(self.clip.visual)[1],
        )

    def pair(
        self, name: str, classes: int, forms: Sequence[str] = ("published", "ours")
    ) -> tuple[Pair, float | None]:
        """Both forms, and their largest relative difference where both are timed and are equal."""
        REPORT.update("building both forms")
        copies = self.dtype != "float32"
        pair = build_pair(name, self.clip, made_up_names(classes), copies=copies)
        error = None
        if name in EXACT and "published" in forms and {"ours", STORED} & set(forms):
            REPORT.update("checking that both forms agree")
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
        """Our form in the chosen dtype; a dtype other than float32 takes a copy of CLIP."""
        clip = self.clip if self.dtype == "float32" else copy.deepcopy(self.clip)
        return self.cast(build_ours(name, clip, names, schedule))

    def train(
        self, name: str, classes: int, batch: int, forms: Sequence[str] = FORMS["train"]
    ) -> list[Row]:
        """Training steps of a published form and of ours, in turns.

        The form "stored" has what a frozen image tower gave at hand; there is none of others.
        """
        pair, error = self.pair(name, classes, forms)
        works, note = self.steps(pair, name, batch, forms)
        rows = {key: self.row("train", name, key, classes, batch) for key in works}
        rows = {key: replace(row, max_error=error) for key, row in rows.items()}
        if "published" in rows:
            rows["published"] = replace(rows["published"], note=note, max_error=None)
        return self.time(rows, works)

    def steps(
        self, pair: Pair, name: str, batch: int, forms: Sequence[str]
    ) -> tuple[dict[str, Work], str]:
        """Training steps by form, and a note on the published one."""
        images = self.images(batch)
        labels = torch.arange(batch, device=self.device) % len(pair.published.ids)
        whole = fits(pair.published, batch if name == "CoCoOp" else 1, self.device)
        form, ours = pair.published if whole else sliced(pair.published), pair.ours
        works: dict[str, Work] = {}
        if "published" in forms:
            works["published"] = published_step(form, images, labels)
        if "ours" in forms:
            works["ours"] = training_step(ours, images, labels)
        if STORED in forms and not ours.tuner.learns_images:
            works[STORED] = training_step(ours, at_hand(ours, images), labels)
        return works, "" if whole else NOTE

    def evaluate(
        self,
        name: str,
        classes: int,
        batch: int,
        schedules: Sequence[Schedule] = (),
        forms: Sequence[str] = FORMS["eval"],
    ) -> list[Row]:
        """Batches of zero-shot CLIP, of a published form, of ours, of ours pruned, in turns."""
        pair, error = self.pair(name, classes, forms)
        names, images = made_up_names(classes), self.images(batch)
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
        return self.time(chosen, works)

    def time(self, rows: Mapping[str, Row], works: Mapping[str, Work]) -> list[Row]:
        """The rows with the times of their works, and with memory and operations if chosen."""
        if not self.counts:
            return list(timed_rows(rows, self.clock.compare(works)).values())
        batch = max(row.batch for row in rows.values())
        products = {
            f"matrix product, {name}": MatrixProduct(self.clip.visual, batch, getattr(torch, name))
            for name in {row.dtype for row in rows.values()}
        }
        timings = self.clock.compare({**works, **products})
        REPORT.update("counting operations and memory")
        found = []
        for key, row in timed_rows(rows, timings).items():
            product = f"matrix product, {row.dtype}"
            machine = products[product].gflop / timings[product].median
            counted = row.counted(count_gflop(works[key]), machine)
            found.append(replace(counted, extra_mb=extra_mb(works[key], self.device)))
        return found
