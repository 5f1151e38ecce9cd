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
from tools.results.figures import Picture
from tools.results.overlays import spotlights
from tools.results.read import CLASSES
from tools.results.rows import AVERAGE, Section, split_sections, trainer_rank, with_average
from tools.results.tables import HEADINGS, NAMES, beside_published, to_text, without_constants

HERE = Path(__file__).parent
MIN_RADAR = 3  # axes


@dataclass
class Part:
    """A section of the page."""

    title: str
    caption: str = ""
    """Settings that are the same in all rows."""
    headings: list[tuple[str, bool]] = field(default_factory=list)
    """Words, and whether numbers stand below them."""
    rows: list[list[tuple[str, Any]]] = field(default_factory=list)
    """Cells: what is shown, and what it is sorted by."""
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def build_page(
    rows: pd.DataFrame, runs: list[dict[str, Any]], title: str, root: str, overlays: int
) -> str:
    """The page.

    Args:
        rows: of `pair_runs`.
        runs: of `read_runs`; those with a folder are shown one by one.
        title: of the page.
        root: folder of all data sets, if it moved; for the overlays.
        overlays: data sets whose kept patches are drawn, at most.
    """
    found = [evidence.read_evidence(run) for run in runs if run.get("folder")]
    parts = [section_part(section) for section in split_sections(rows)]
    parts += [confusion_part(found), curve_part(found), spotlight_part(found, root, overlays)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        title=title,
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        parts=[part for part in parts if part.rows or part.pictures or part.notes],
        runs=list(zip(found, evidence.told_configs(found), strict=True)),
        revisions=sorted({str(run.record.get("git")) for run in found}),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
    )


def labelled(summary: pd.DataFrame) -> pd.DataFrame:
    """A summary with a label a row: the trainer, with config and settings that tell rows apart.

    A config is named where a trainer has several in one place. Configs that differ from shots to
    shots are no such case.
    """
    configs = summary.groupby(["trainer", "dataset", "shots"])["config"].nunique()
    several = set(configs[configs > 1].index.get_level_values("trainer"))
    label = summary["trainer"].where(
        ~summary["trainer"].isin(several), summary["trainer"] + ": " + summary["config"]
    )
    return summary.assign(
        label=label + (", " + summary["settings"]).where(summary["settings"] != "", "")
    )


def section_part(section: Section) -> Part:
    """Table, bars, curves and radar of a protocol."""
    own = [name for name in CLASSES if name in section.scores]
    summary = with_average(section)
    pairs = "hm" in section.scores
    part = Part(section.title, *table(beside_published(summary) if pairs else summary))
    marked = labelled(summary)
    scores = [*own, "hm_mean"] if pairs else own
    several = summary["shots"].nunique() > 1
    averages_first = sorted(marked.groupby("dataset"), key=lambda pair: pair[0] != AVERAGE)
    for dataset, of_one in averages_first:
        if several:
            text = f"{dataset}: accuracy over training pictures a class"
            part.pictures.append(figures.shot_curves(of_one, text))
        else:
            part.pictures.append(figures.bars(of_one, scores, f"{dataset}: accuracy by trainer"))
    single = marked[(marked["dataset"] != AVERAGE) & (marked["shots"] == marked["shots"].max())]
    if single["dataset"].nunique() >= MIN_RADAR:
        name = HEADINGS.get(scores[-1], "accuracy")
        part.pictures.append(figures.radar(single, scores[-1], f"{name} over data sets"))
    return part


def table(
    summary: pd.DataFrame,
) -> tuple[str, list[tuple[str, bool]], list[list[tuple[str, Any]]]]:
    """Caption, headings (with whether they stand over numbers) and cells of a summary."""
    text, caption = without_constants(to_text(summary))
    headings = [(HEADINGS.get(name, name), name not in NAMES) for name in text.columns]
    cells = [
        [(shown, order_of(summary, name, i)) for i, shown in enumerate(text[name])]
        for name in text.columns
    ]
    return caption, headings, [list(row) for row in zip(*cells, strict=True)]


def order_of(summary: pd.DataFrame, name: str, i: int) -> Any:
    """What a cell is sorted by: its number, "" where it has none, or its words."""
    value = summary[name].iat[i]
    return "" if pd.isna(value) else value


def by_dataset(found: list[evidence.Evidence]) -> Iterator[tuple[str, list[evidence.Evidence]]]:
    """Runs by data set and class subset, of what was trained on that data set itself."""
    groups: dict[str, list[evidence.Evidence]] = {}
    for run in found:
        record = run.record
        if record.get("source", record["dataset"]) == record["dataset"]:
            kind = "" if record["classes"] == "all" else f", {record['classes']} classes"
            groups.setdefault(record["dataset"] + kind, []).append(run)
    yield from sorted(groups.items())


def confusion_part(found: list[evidence.Evidence]) -> Part:
    """For each data set the classes that its best trainer recognises worst."""
    part = Part("Confusion of the worst classes")
    for name, runs in by_dataset(found):
        frame = pd.DataFrame([run.record for run in runs])
        frame["settings"] = [run.settings for run in runs]
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
            part.pictures.append(figures.confusion_matrix(shares, text))
    return part


def curve_part(found: list[evidence.Evidence]) -> Part:
    """Training curves, a figure a data set, of the first seed and the most shots."""
    part = Part("Training curves")
    for name, runs in by_dataset(found):
        first = min(run.record["seed"] for run in runs)
        most = max(run.record["shots"] for run in runs)
        chosen = [r for r in runs if (r.record["seed"], r.record["shots"]) == (first, most)]
        chosen = sorted(chosen, key=lambda run: trainer_rank(run.record["trainer"]))
        curves = {}
        for run in chosen:
            curve = evidence.training_curve(run.folder, run.record.get("epoch", 0))
            if curve is not None:
                how = ", ".join(filter(None, (run.record["config"], run.settings)))
                curves[f"{run.record['trainer']}: {how}"] = curve
        if curves:
            text = f"{name}: seed {first}, {most} shots, means over the batches of an epoch"
            part.pictures.append(figures.training_curves(curves, text))
    return part


def spotlight_part(found: list[evidence.Evidence], root: str, number: int) -> Part:
    """Kept patches, of the first Spotlighter run on each of some data sets."""
    part = Part("What Spotlighter looked at")
    firsts: dict[str, evidence.Evidence] = {}
    for run in found:
        trained = (run.folder / "prompt_learner").is_dir()
        if run.record["trainer"] == "Spotlighter" and trained:
            firsts.setdefault(run.record["dataset"], run)
    for run in list(firsts.values())[:number]:
        try:
            part.pictures.append(spotlights(run.folder, root))
        except (ValueError, OSError) as error:
            part.notes.append(f"{run.folder} could not be drawn: {error}")
    return part
