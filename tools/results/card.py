"""The model card of an exported run: what it is, what it was measured on, and its limits."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runs.processes import content_of_results
from tools.results.cells import markdown_table, markdown_text
from tools.results.evidence import class_accuracies

MOST_ROWS = 100  # classes whose accuracy is listed
FIGURES = {  # of results.json, older ones of which lack some; and their decimals
    "accuracy, percent": ("accuracy", 2), "macro F1, percent": ("macro_f1", 2),
    "nll, nats": ("nll", 4), "ece, percent": ("ece", 2),
}
FEW = 10  # test pictures of a class that say little
SEEN = {
    "tiny-emoji": "The backbone is the embedded tiny CLIP, which has seen drawings of emoji alone.",
}
USE = """## Use

`docs/examples/classify_onnx.py` in Spotlighter's repository prepares pictures as model.json says
and prints the class of each. It needs onnxruntime, numpy and Pillow, and not the repository:

    python classify_onnx.py FOLDER_OF_THIS_FILE PICTURE ...

`torch.export.load` reads model.pt2. Softmax makes probabilities of the output `logits`."""


def model_card(run: Path, described: Mapping[str, Any]) -> str:
    """The card in Markdown, of a run's folder and the content of model.json."""
    results = content_of_results(run) if (run / "results.json").is_file() else {}
    data = results.get("dataset", "unknown data")
    title = f"# {described['trainer']} on {markdown_text(data)}"
    names = ", ".join(str(markdown_text(name)) for name in described["class_names"])
    parts = [title, *facts(described, results), f"## Classes\n\n{names}"]
    if is_of_the_run(described, results):
        parts += list(accuracies(run))
    parts.append(USE)
    parts.append("## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits(described, results)))
    return "\n\n".join(parts) + "\n"


def is_of_the_run(described: Mapping[str, Any], results: Mapping[str, Any]) -> bool:
    """Whether the exported classes are those that the run was tested on."""
    return bool(results) and list(results.get("class_names", ())) == described["class_names"]


def facts(described: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    """What the model is, and how good it was."""
    rows = {
        "method": described["trainer"], "CLIP": described["backbone"],
        "classes": len(described["class_names"]), "temperature": described["temperature"],
        "checkpoint (SHA-256)": (described["checkpoint"] or {}).get("sha256", "none: not trained"),
        "revision": described["versions"]["git"],
    }
    if results:
        shots = results.get("shots") or "none (zero-shot)"
        shots = "all" if shots == -1 else shots
        rows |= {
            "data": results.get("dataset"), "digest of the data": results.get("data") or "none",
            "training pictures of each class, at most": shots,
            "seed": results.get("seed"), "date": results.get("date"),
        }
    yield table(rows)
    if not is_of_the_run(described, results):
        why = "the run was tested on other classes" if results else "the run left no results"
        yield f"There are no figures of this model: {why}."
        return
    figures = {"split": results.get("split"), "pictures": results.get("n")}
    for name, (key, digits) in FIGURES.items():
        figures |= {name: f"{results[key]:.{digits}f}"} if key in results else {}
    yield "## Measured\n\n" + table(figures)
    yield (
        "nll is the mean negative log-likelihood of the right class. ece is how far confidence and "
        "accuracy lie apart on average: 0 where the pictures called 80 % sure are right eight "
        "times of ten."
    )


def table(rows: Mapping[str, Any]) -> str:
    """Two columns in Markdown."""
    lines = [f"| {key} | {markdown_text(str(value))} |" for key, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def accuracies(run: Path) -> Iterator[str]:
    """The accuracy of each class, where predictions.csv says it and there are not too many."""
    try:
        found = class_accuracies([run])
    except ValueError:
        return
    if found is None or len(found) > MOST_ROWS:
        return
    shown = found.rename_axis("class").reset_index()
    shown = shown.rename(columns={"pictures": "test pictures", "accuracy": "accuracy, percent"})
    yield "## Accuracy of each class\n\n" + markdown_table(shown, floatfmt=".1f")


def limits(described: Mapping[str, Any], results: Mapping[str, Any]) -> Sequence[str]:
    """What a user of the model should know."""
    found = ["It answers with one of its classes, whatever a picture shows."]
    if is_of_the_run(described, results):
        error = (results["accuracy"] * (100 - results["accuracy"]) / results["n"]) ** 0.5
        found.append(
            f"The accuracy is of {results['n']} pictures of the same collection (standard error "
            f"{error:.1f} points). Pictures of other cameras, places or times may be harder."
        )
        found.append(f"A class with fewer than {FEW} test pictures may be far from its figure.")
        if both := results.get("trained_on_test_pictures"):
            what = f"{both} training pictures were test pictures, too"
            found.append(f"{what}: the figures are better than the model.")
    found.append(
        SEEN.get(
            described["backbone"],
            "CLIP was trained on pictures and texts of the web, with their gaps and biases; its "
            "authors advise to test it on the task at hand before it is used.",
        )
    )
    return [*found, "Pictures must be prepared as model.json says, or the answers are others."]
