"""docs/reliability.md: what was provoked and what happened, and the figures that were measured."""

import csv

HEAD = """\
# What goes wrong, and what happens then

Every row is a fault that a test provokes, and what was seen. The tests write this page, and fail
where it says something else than what they see:

    WRITE_TABLE=1 bash scripts/test.sh tests/reliability -m "thorough or not thorough"

Some of these tests write their own rows alone; the row of a test that is gone is removed by hand.
OUT is the folder of a run, DATA that of the data sets. "Alike" means: weights, bank, optimiser,
random states, metrics and printed accuracy are equal bit for bit to those of a run that was left
alone (CPU, float32).
"""
FIGURES = """
## Figures

Tests counted what survived, and measured what large inputs take. Each figure is of the test beside
it: `python -m pytest -m "thorough or not thorough" TEST`. "Noticed" means: refused or warned of in
a sentence; flips that were not noticed changed nothing that is read. Times are those of one
processor core of the machine that measured last; memory is the most that the process held, its
packages included.

| what | figure | test |
|:--|:--|:--|
"""
# The title of each part, and what was done there.
PARTS = {
    "resume": (
        "A run that is stopped",
        "Runs were killed (SIGKILL) in a step, between files and while a file was written; then "
        "the same command was given again.",
    ),
    "files": (
        "Damaged checkpoints",
        "Checkpoints of a run were damaged, emptied, removed, or written anew with other content; "
        "then the run went on from them, or they were evaluated.",
    ),
    "system": (
        "Disk, permissions, Ctrl-C, two runs",
        "The disk was filled, permissions were taken away, signals were sent, and two runs were "
        "given one folder.",
    ),
    "processes": (
        "Several processes, memory, what is left behind",
        "32 processes wanted one file at once; workers were killed; and memory, open files and "
        "processes were limited.",
    ),
    "numbers": (
        "NaN and infinite values",
        "NaN and infinite numbers were put into weights, losses, gradients, scores and the bank.",
    ),
    "malicious": (
        "Files from strangers",
        "Files were made that run code, write elsewhere or fill the memory when they are read "
        "without care; then each was given to a run.",
    ),
    "identity": (
        "A checkpoint that does not fit",
        "A checkpoint was evaluated, or gone on from, with other settings, weights, classes or "
        "pictures than it was trained with.",
    ),
    "input": (
        "Bad input",
        "Command lines, pictures and class names were given that are odd, damaged or empty.",
    ),
}


def cell(text):
    """Words as they may stand in a table."""
    return " ".join(text.split()).replace("|", "/").replace("<", "&lt;")


class Figures:
    """Figures that tests measure: a row a figure in a CSV, which the page shows.

    Args:
        path: of the CSV.
        write: take new figures; otherwise each must have a row there, whatever its figure is.
    """

    def __init__(self, path, write):
        self.path, self.write = path, write
        with path.open(newline="", encoding="utf-8") as file:
            self.rows = {row["what"]: row for row in csv.DictReader(file)}

    def note(self, what, figure, test):
        """Take a figure."""
        if not self.write:
            assert what in self.rows, f"{self.path} lacks a row: {what}"
            return
        self.rows[what] = {"what": what, "figure": figure, "test": test}
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["what", "figure", "test"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows[name] for name in sorted(self.rows))

    def text(self):
        """The section of the page."""
        rows = [self.rows[name] for name in sorted(self.rows)]
        lines = [f"| {cell(r['what'])} | {cell(r['figure'])} | `{r['test']}` |" for r in rows]
        return FIGURES + "".join(f"{line}\n" for line in lines)


class Table:
    """Rows as they are noted.

    Args:
        path: of the page.
        figures: its last section.
        write: write the page at the end; otherwise it must have each row.
    """

    def __init__(self, path, figures, write):
        self.path, self.figures, self.write = path, figures, write
        self.rows = {part: {} for part in PARTS}  # by fault
        self.lines = path.read_text().splitlines() if path.exists() else []

    def note(self, part, fault, happened):
        """Take a row."""
        row = f"| {fault} | {cell(happened)} |"
        self.rows[part][fault] = row
        assert self.write or row in self.lines, (
            f"docs/reliability.md lacks, or has otherwise: {row}"
        )

    def finish(self):
        """Write the page, if that is wanted; a row stays where no test noted its fault."""
        if self.write:
            self.path.write_text(self.faults() + self.figures.text())

    def faults(self):
        """The page without its figures."""
        text = HEAD
        for part, (title, sentence) in PARTS.items():
            text += f"\n## {title}\n\n{sentence}\n\n| fault | what happened |\n|:--|:--|\n"
            rows = self.rows_before(title) | self.rows[part]
            text += "".join(f"{row}\n" for row in sorted(rows.values()))
        return text

    def rows_before(self, title):
        """The rows that a part of the page has, by fault."""
        part = "\n".join(self.lines).partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        lines = [line for line in part.splitlines() if line.startswith("| ")][1:]
        return {line.split(" | ")[0].removeprefix("| "): line for line in lines}
