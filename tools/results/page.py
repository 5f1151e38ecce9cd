"""All results of a folder -> one HTML page that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from tools.results import evidence, figures
from tools.results.evidence import Evidence
from tools.results.figures import Picture
from tools.results.overlays import spotlights
from tools.results.read import CLASSES
from tools.results.rows import AVERAGE, Section, split_sections, trainer_rank, with_average
from tools.results.tables import HEADINGS, NAMES, to_text, with_published, without_constants

HERE = Path(__file__).parent
MIN_RADAR = 3  # axes


@dataclass
class Part:
    """A section of the page."""

    title: str
    caption: str = ""  # settings that are the same in all rows
    headings: list[tuple[str, bool]] = field(default_factory=list)  # and whether of numbers
    rows: list[list[tuple[str, Any]]] = field(default_factory=list)  # cells: text, sorting key
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def build_page(
    rows: pd.DataFrame, runs: list[dict[str, Any]], title: str, root: str, overlays: int
) -> str:
    """Return the page of the rows of `pair_runs` and the runs of `load_runs`.

    Args:
        rows: a row for each seed.
        runs: those with a results.json are shown one by one.
        title: of the page.
        root: folder of all data sets, if it was moved; for the overlays.
        overlays: data sets whose kept patches are drawn, at most.
    """
    found = [evidence.read_evidence(run) for run in runs if "record" in run]
    parts = [section_part(section) for section in split_sections(rows)]
    parts += [confusion_part(found), curve_part(found), overlay_part(found, root, overlays)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        title=title,
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        parts=[part for part in parts if part.rows or part.pictures or part.notes],
        runs=list(zip(found, evidence.short_configs(found), strict=True)),
        revisions=sorted({str(run.record.get("git")) for run in found}),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
    )


def section_part(section: Section) -> Part:
    """Return table, bars, curves and radar of a protocol."""
    scores = [name for name in CLASSES if name in section.scores]
    shown = summary = with_average(section)
    if "hm" in section.scores:
        scores, shown = [*scores, "hm_mean"], with_published(summary)
    part = Part(section.title)
    text, part.caption = without_constants(to_text(shown))
    part.headings = [(HEADINGS.get(name, name), name not in NAMES) for name in text.columns]
    order = shown[text.columns].astype(object).where(shown[text.columns].notna(), "")
    pairs = zip(text.to_numpy(), order.to_numpy(), strict=True)
    part.rows = [list(zip(*pair, strict=True)) for pair in pairs]
    labelled = summary.assign(label=labels(summary))
    for dataset, rows in sorted(labelled.groupby("dataset"), key=lambda pair: pair[0] != AVERAGE):
        if summary["shots"].nunique() > 1:
            text = f"{dataset}: accuracy over training pictures a class"
            part.pictures.append(figures.shot_curves(rows, text=text))
        else:
            text = f"{dataset}: accuracy by trainer"
            part.pictures.append(figures.bars(rows, scores, text=text))
    most_shots = labelled["shots"] == labelled["shots"].max()
    single = labelled[(labelled["dataset"] != AVERAGE) & most_shots]
    if single["dataset"].nunique() >= MIN_RADAR:
        text = f"{HEADINGS.get(scores[-1], 'accuracy')} over data sets"
        part.pictures.append(figures.radar(single, scores[-1], text=text))
    return part


def labels(summary: pd.DataFrame) -> pd.Series:
    """Return the trainer of each row, with its config and settings where several are compared."""
    trainer = summary["trainer"]
    configs = summary.groupby(["trainer", "dataset", "shots"])["config"].nunique()
    several = configs[configs > 1].index.get_level_values("trainer")
    label = trainer.where(~trainer.isin(several), trainer + ": " + summary["config"])
    return label + (", " + summary["settings"]).where(summary["settings"] != "", "")


def by_dataset(found: list[Evidence]) -> Iterator[tuple[str, list[Evidence]]]:
    """Yield runs by data set and class subset, of what was trained on that data set itself."""
    groups: dict[str, list[Evidence]] = {}
    for run in found:
        record = run.record
        if record.get("source", record["dataset"]) == record["dataset"]:
            kind = "" if record["classes"] == "all" else f", {record['classes']} classes"
            groups.setdefault(record["dataset"] + kind, []).append(run)
    yield from sorted(groups.items())


def confusion_part(found: list[Evidence]) -> Part:
    """For each data set show the classes that its best trainer recognises worst."""
    part = Part("Confusion of the worst classes")
    for name, runs in by_dataset(found):
        frame = pd.DataFrame([run.record | {"settings": run.settings} for run in runs])
        groups = frame.groupby(["trainer", "config", "settings", "shots"])
        trainer, config, settings, shots = best = groups["accuracy"].mean().idxmax()
        try:
            shares = evidence.worst_confusions(runs[i] for i in groups.get_group(best).index)
        except ValueError as error:
            part.notes.append(f"{name}: {error}")
            continue
        if shares is not None:
            how = ", ".join(filter(None, (config, settings, f"{shots} shots")))
            text = f"{name}: {trainer} ({how}), percent of each true class"
            part.pictures.append(figures.confusion_matrix(shares, text=text))
    return part


def curve_part(found: list[Evidence]) -> Part:
    """Show training curves for each data set, of the first seed and the most shots."""
    part = Part("Training curves")
    for name, runs in by_dataset(found):
        seed = min(run.record["seed"] for run in runs)
        shots = max(run.record["shots"] for run in runs)
        chosen = [r for r in runs if (r.record["seed"], r.record["shots"]) == (seed, shots)]
        curves = {}
        for run in sorted(chosen, key=lambda run: trainer_rank(run.record["trainer"])):
            curve = evidence.training_curve(run.folder, run.record.get("epoch", 0))
            if curve is not None:
                how = ", ".join(filter(None, (run.record["config"], run.settings)))
                curves[f"{run.record['trainer']}: {how}"] = curve
        if curves:
            text = f"{name}: seed {seed}, {shots} shots, means over the batches of an epoch"
            part.pictures.append(figures.training_curves(curves, text=text))
    return part


def overlay_part(found: list[Evidence], root: str, number: int) -> Part:
    """Draw the kept patches of the first Spotlighter run on each of some data sets."""
    part = Part("Patches that Spotlighter kept")
    firsts: dict[str, Path] = {}
    for run in found:
        if run.record["trainer"] == "Spotlighter" and (run.folder / "prompt_learner").is_dir():
            firsts.setdefault(run.record["dataset"], run.folder)
    for folder in list(firsts.values())[:number]:
        try:
            part.pictures.append(spotlights(folder, root))
        except (ValueError, OSError) as error:
            part.notes.append(f"{folder} could not be drawn: {error}")
    return part
