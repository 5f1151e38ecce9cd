"""Files to logits: the test loader and a model, in turns with zero-shot CLIP on the same loader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from lab.bench.backbones import Schedule
from lab.bench.measure import Bench, compared
from lab.bench.pictures import Source
from lab.bench.rows import Row
from lab.bench.works import Classifier, classifier, zero_shot
from runs.data import prefetch

TRAINER = "Spotlighter"


def one_pass(
    bench: Bench, classify: Classifier, batches: Callable[[], Iterable[Any]]
) -> Callable[[], None]:
    """All batches through a model."""

    def work() -> None:
        for batch in batches():
            classify(batch["img"].to(bench.device, non_blocking=True))

    return work


def time_end_to_end(
    bench: Bench, source: Source, workers: int, schedules: Sequence[Schedule] = ()
) -> list[Row]:
    """Passes of zero-shot CLIP, batch after batch, and of Spotlighter, which reads ahead."""
    loader = source.manager(workers).test_loader
    label_names = {item.label: item.classname for item in loader.dataset.data_source}
    names = [name for _, name in sorted(label_names.items())]
    row = bench.row("end2end", TRAINER, "zero-shot", len(names), source.batch)
    row = replace(row, workers=workers, note=source.note)
    rows, works = {"zero-shot": row}, {}
    works["zero-shot"] = one_pass(bench, zero_shot(bench.clip, names), lambda: loader)
    for schedule in (None, *schedules):
        classify = classifier(bench.ours(TRAINER, names, schedule))
        own = replace(row, form="ours", dtype=bench.dtype)
        key = "ours" if schedule is None else f"ours, {schedule}"
        rows[key] = own if schedule is None else own.pruned(schedule)
        works[key] = one_pass(bench, classify, lambda: prefetch(loader))
    timings = bench.clock.compare(works)
    images = len(loader.dataset)
    found = {key: row.timed(timings[key], images) for key, row in rows.items()}
    return [compared(row, found).signed() for row in found.values()]
