"""Write one self-contained HTML report of all results below a folder.

Usage:
    python tools/report.py output/base2new --output page.html --title "Base to new"

Tables that can be sorted, bars, few-shot curves, radar, reliability diagrams, confusion, training
curves, kept patches, and config, versions and revision of every run; with --by-class the accuracy
of each class, with --wrong the pictures that a run got wrong. The page needs no network.
"""

import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/report.py`
from runs.calibration import pooled
from tools.results import evidence, figures, rows
from tools.results.figures import Picture
from tools.results.read import CLASSES
from tools.results.tables import (
    HEADINGS,
    NAMES,
    by_shots,
    new_classes,
    to_text,
    with_published,
    without_constants,
)
from tools.shared.command_line import parser_of, reports_user_errors, whole
from tools.sweeps.names import shots_in_words

TEMPLATES = Path(__file__).parent / "results"
MIN_RADAR, MAX_RADAR = 3, 8  # axes; lines
OVERLAYS = 3  # test pictures of a data set
MOST_WRONG = 60  # pictures
Runs = list[dict[str, Any]]  # of `rows.load_runs`


@dataclass
class Part:
    """A section of the page."""

    title: str
    caption: str = ""  # settings that are the same in all rows
    headings: list[tuple[str, bool]] = field(default_factory=list)  # and whether of numbers
    rows: list[list[tuple[str, Any]]] = field(default_factory=list)  # cells: text, sorting key
    footnote: str = ""  # below the table
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    small: bool = False  # many small pictures

    def cell_class(self, column: int) -> str:
        """Return how the cells of a column look: "name" stays in sight when the table is moved."""
        heading, is_number = self.headings[column]
        return "number" if is_number else "name" if heading in ("trainer", "class") else "word"


def render(title: str, parts: list[Part], found: Runs) -> str:
    """Return the page of some parts and of single runs."""
    options = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), **options)
    environment.filters["shots"] = shots_in_words
    return environment.get_template("page.html").render(
        title=title, date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        parts=[part for part in parts if part.rows or part.pictures or part.notes or part.caption],
        has_seeds=len({run["seed"] for run in found}) > 1,
        has_hm=any(run["classes"] != "all" for run in found),
        count=len(found), runs=by_trainer(found),
        revisions=sorted({str(run["record"].get("git")) for run in found}),
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        script=(TEMPLATES / "page.js").read_text(encoding="utf-8"),
    )


def by_trainer(found: Runs) -> list[tuple[str, list[tuple[dict[str, Any], str]]]]:
    """Return the runs of each trainer, each with its config, in the order of tables."""
    groups: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for run, config in zip(found, evidence.short_configs(found), strict=True):
        groups.setdefault(run["trainer"], []).append((run, config))
    return sorted(groups.items(), key=lambda group: rows.trainer_rank(group[0]))


def average_first(shown: pd.DataFrame) -> pd.DataFrame:
    """Return rows with those of the average above those of single data sets."""
    is_average = shown["dataset"] == rows.AVERAGE
    return pd.concat([shown[is_average], shown[~is_average]], ignore_index=True)


def section_part(section: rows.Section, order: str) -> Part:
    """Return table, bars, curves and radar of a protocol; `order` is one of `rows.ORDERS`."""
    scores = [name for name in CLASSES if name in section.scores]
    shown = summary = rows.order_rows(rows.with_average(section), order)
    if "hm" in section.scores:
        scores, shown = [*scores, "hm_mean"], rows.order_rows(with_published(summary), order)
    shown = average_first(shown)
    text, label = to_text(shown), rows.labels(shown)
    part = Part(section.title, footnote=new_classes(text))
    keys = by_shots(shown[text.columns], label)
    text, part.caption = without_constants(by_shots(text, label))
    part.headings = [(HEADINGS.get(name, name), name not in NAMES) for name in text.columns]
    keys = keys[text.columns].astype(object).where(keys[text.columns].notna(), "")
    pairs = zip(text.to_numpy(), keys.to_numpy(), strict=True)
    part.rows = [list(zip(*pair, strict=True)) for pair in pairs]
    labelled = summary.assign(label=rows.labels(summary))
    groups = sorted(labelled.groupby("dataset"), key=lambda pair: pair[0] != rows.AVERAGE)
    for dataset, group in groups:
        if group[scores].isna().all(axis=None):  # an average, and no trainer has all data sets
            continue
        if summary.loc[summary["shots"] != 0, "shots"].nunique() > 1:  # zero-shot has none
            over, drawn = "over training pictures a class", (figures.shot_curves, group)
        else:
            over, drawn = "by trainer", (figures.bars, group, scores)
        part.pictures.append(figures.as_picture(*drawn, text=f"{dataset}: accuracy {over}"))
    shots = rows.shots_in_order(labelled["shots"])
    most_shots = shots == shots.max()
    single = labelled[(labelled["dataset"] != rows.AVERAGE) & most_shots]
    if single["dataset"].nunique() >= MIN_RADAR:
        part.pictures.append(radar_of(single, scores[-1]))
    return part


def radar_of(summary: pd.DataFrame, score: str) -> Picture:
    """Return a radar of a score over data sets, of the best labels where there are many."""
    text, number = f"{HEADINGS.get(score, 'accuracy')} over data sets", summary["label"].nunique()
    best = best_labels(summary, score)
    if len(best) < number:
        text += f" of the best {len(best)} of {number}"
        summary = summary[summary["label"].isin(best)]
    return figures.as_picture(figures.radar, summary, score, text=text)


def best_labels(summary: pd.DataFrame, score: str) -> list[str]:
    """Return the labels of the best means of a score over data sets, as many as a radar shows."""
    return list(summary.groupby("label", sort=False)[score].mean().nlargest(MAX_RADAR).index)


def by_dataset(found: Runs) -> Iterator[tuple[str, Runs]]:
    """Yield runs by data set and class subset, of what was trained on that data set itself."""
    groups: dict[str, Runs] = {}
    for run in found:
        if run["source"] == run["dataset"]:
            kind = "" if run["classes"] == "all" else f", {run['classes']} classes"
            groups.setdefault(run["dataset"] + kind, []).append(run)
    yield from sorted(groups.items())


def confusion_part(found: Runs) -> Part:
    """For each data set show what its best trainer takes the classes for, or the worst of many."""
    part = Part("Confusion")
    for name, runs in by_dataset(found):
        groups = pd.DataFrame(runs).groupby(["trainer", "config", "settings", "shots"])
        trainer, config, settings, shots = best = groups["accuracy"].mean().idxmax()
        try:
            shares = evidence.confusions(map(Path, groups.get_group(best)["path"]))
        except ValueError as error:
            part.notes.append(f"{name}: {error}")
            continue
        if shares is not None:
            how = ", ".join(filter(None, (config, settings, shots_in_words(shots))))
            text = f"{name}: {trainer} ({how}), percent of each true class"
            part.pictures.append(figures.as_picture(figures.confusion_matrix, shares, text=text))
    return part


def class_parts(found: Runs) -> Iterator[Part]:
    """For each data set yield accuracies by class and trainer, the worst of the last one first."""
    for name, runs in by_dataset(found):
        part, frame = Part(f"Accuracy of each class: {name}"), pd.DataFrame(runs)
        frame = frame.assign(label=rows.labels(frame)).sort_values(
            "trainer", key=lambda names: names.map(rows.trainer_rank)
        )
        columns, pictures = {}, pd.Series(dtype=int)
        for label, group in frame.groupby("label", sort=False):
            try:
                scores = evidence.class_accuracies(map(Path, group["path"]))
            except ValueError as error:
                part.notes.append(f"{label}: {error}")
                continue
            if scores is not None:
                columns[label] = scores["accuracy"]
                pictures = scores["pictures"] // len(group)
        table = pd.DataFrame(columns)
        if len(table):
            table = table.sort_values(table.columns[-1], kind="stable")
            part.headings = [("class", False), ("test pictures", True)]
            part.headings += [(label, True) for label in table]
        for name_of_class, scores in table.iterrows():
            count = int(pictures.get(name_of_class, 0))
            cells = [(f"{score:.1f}", float(score)) for score in scores]
            part.rows.append([(name_of_class, name_of_class), (str(count), count), *cells])
        yield part


def wrong_part(folder: Path, root: str) -> Part:
    """Show the pictures that a run got wrong."""
    from tools.results.wrong import wrong_pictures  # loads torch

    if not (folder / "results.json").is_file():
        why = "so it is not the output folder of a finished run (--wrong)"
        raise FileNotFoundError(f"{folder} holds no results.json, {why}")
    record = json.loads((folder / "results.json").read_text("utf-8"))
    part = Part(f"Wrong pictures of {record['trainer']}", small=True)
    try:
        part.pictures, part.caption = wrong_pictures(folder, root, MOST_WRONG)
    except (ValueError, OSError) as error:
        part.notes.append(f"{folder} could not be drawn: {error}")
    return part


def reliability_part(found: Runs) -> Part:
    """For each data set show how sure each trainer is, and how often right, at its most shots."""
    part = Part("Reliability diagrams")
    own = [run for run in found if run["source"] == run["dataset"]]
    own = [run for run in own if run["record"].get("reliability") is not None]
    if not own:
        return part
    frame = pd.DataFrame(own).assign(label=rows.labels)
    shots = rows.shots_in_order(frame["shots"])
    most = shots.groupby([frame["dataset"], frame["label"]]).transform("max")
    frame = frame[shots == most]
    for dataset, runs in frame.groupby("dataset"):
        for kind in (["base", "new"], ["all"]):
            try:
                panels = panels_of(runs, kind)
            except ValueError as error:
                part.notes.append(f"{dataset}: {error}")
                continue
            if panels:
                text = f"{dataset}: accuracy by confidence, {' and '.join(kind)} classes"
                part.pictures.append(figures.as_picture(figures.reliability, panels, text=text))
    return part


def panels_of(runs: pd.DataFrame, kind: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return by label and classes the diagram of all seeds' pictures, and the mean ece."""
    panels: dict[str, dict[str, Any]] = {}
    ordered = runs.sort_values("trainer", key=lambda names: names.map(rows.trainer_rank))
    for label in ordered["label"].unique():
        for classes in kind:
            group = runs[(runs["label"] == label) & (runs["classes"] == classes)]
            if len(group):
                diagram = pooled([record["reliability"] for record in group["record"]])
                panels.setdefault(label, {})[classes] = (diagram, float(group["ece"].mean()))
    return panels


def curve_part(found: Runs) -> Part:
    """Show training curves for each data set, of the first seed and the most shots."""
    part = Part("Training curves")
    for name, runs in by_dataset(found):
        every = {run["shots"] for run in runs}
        seed, shots = min(run["seed"] for run in runs), min(every) if min(every) < 0 else max(every)
        chosen = [run for run in runs if (run["seed"], run["shots"]) == (seed, shots)]
        curves = {}
        for run in sorted(chosen, key=lambda run: rows.trainer_rank(run["trainer"])):
            curve = evidence.training_curve(Path(run["path"]), run["record"].get("epoch", 0))
            if curve is not None:
                how = ", ".join(filter(None, (run["config"], run["settings"])))
                curves[f"{run['trainer']}: {how}"] = curve
        if curves:
            how = f"seed {seed}, {shots_in_words(shots)}"
            text = f"{name}: {how}, means over the batches of an epoch"
            if any(label.startswith("Spotlighter") for label in curves):
                text += "; of Spotlighter its prompts alone, as patches are weighed at the end"
            part.pictures.append(figures.as_picture(figures.training_curves, curves, text=text))
    return part


def overlay_part(found: Runs, root: str, number: int) -> Part:
    """Draw the kept patches of the first Spotlighter run on each of `number` data sets."""
    part = Part("Patches that Spotlighter kept")
    firsts: dict[str, Path] = {}
    for run in found:
        folder = Path(run["path"])
        if run["trainer"] == "Spotlighter" and (folder / "prompt_learner").is_dir():
            firsts.setdefault(run["dataset"], folder)
    for folder in list(firsts.values())[:number]:
        try:
            part.pictures.append(spotlights(folder, root))
        except (ValueError, OSError) as error:
            part.notes.append(f"{folder} could not be drawn: {error}")
    return part


def spotlights(folder: Path, root: str) -> Picture:
    """Return the maps and kept patches of some test pictures of a Spotlighter run."""
    from runs.logs import quiet  # these load torch
    from tools.visualise import choose_pictures, draw, open_spotlighter

    with quiet():  # the log describes the data set otherwise
        trainer = open_spotlighter(folder, root)
    buffer, options = io.BytesIO(), {"format": "jpeg", "pil_kwargs": {"quality": 70}}
    draw(trainer, choose_pictures(trainer, OVERLAYS), buffer, **options)
    text = (
        f"{trainer.state.label}: relevance of patches to the picture (sample-wise) and to the "
        "class names (semantic-wise), and the kept patches by rank"
    )
    return Picture(figures.data_uri("jpeg", buffer.getvalue()), text)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; returns 1 if nothing was found."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("results", type=Path, help="folder below which results are looked for")
    add("--output", type=Path, help="file to write (RESULTS/report.html)")
    add("--title", default="Results", help="of the page (Results)")
    add("--root", default="", help="folder of all data sets, if it was moved")
    add("--overlays", type=whole(0), default=2, help="data sets whose kept patches are drawn (2)")
    add("--order", choices=rows.ORDERS, default="best", help=f"of rows: {rows.IN_WORDS}")
    add("--by-class", action="store_true", help="show the accuracy of each class")
    wrong = f"show the pictures that these runs got wrong, at most {MOST_WRONG} of each"
    add("--wrong", nargs="+", type=Path, default=[], metavar="RUN", help=wrong)
    args = parser.parse_args(arguments)
    runs = rows.load_runs(args.results)
    if not runs:
        print(f"no results below {args.results}", file=sys.stderr)
        return 1
    found = [run for run in runs if "record" in run]
    sections = rows.split_sections(rows.pair_runs(runs))
    parts = [section_part(section, args.order) for section in sections]
    parts += [wrong_part(folder, args.root) for folder in args.wrong]
    parts += class_parts(found) if args.by_class else []
    parts += [reliability_part(found), confusion_part(found), curve_part(found)]
    parts.append(overlay_part(found, args.root, args.overlays))
    output = args.output or args.results / "report.html"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render(args.title, parts, found), encoding="utf-8")
    print(f"Wrote {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
