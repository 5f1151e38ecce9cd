"""docs/reliability.md: what was provoked and what happened, and the figures that were measured."""

import csv

HEAD = """\
# What goes wrong, and what happens then

Every row is a fault that a test provokes, and what was seen. The tests write this page, and fail
where it says something else than what they see:

    WRITE_TABLE=1 bash scripts/test.sh tests/reliability -m "thorough or not thorough"

OUT is the folder of a run, DATA that of the data sets. "Alike" means: weights, bank, optimiser,
random states, metrics and printed accuracy are equal bit for bit to those of a run that was left
alone (CPU, float32).
"""
FIGURES = """
## Figures

Each was measured by the test beside it: `python -m pytest -m "thorough or not thorough" TEST`.
Times are those of one processor core of the machine that measured last; memory is the most that the
process held, its packages included.

| what | figure | test |
|:--|:--|:--|
"""
PARTS = {
    "resume": "A run that is stopped",
    "files": "Damaged checkpoints",
    "system": "Disk, permissions, Ctrl-C, two runs",
    "processes": "Several processes, memory, what is left behind",
    "numbers": "NaN and infinite values",
    "malicious": "Files from strangers",
    "identity": "A checkpoint that does not fit",
    "input": "Bad input",
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
        self.rows = {part: set() for part in PARTS}
        self.lines = [] if write or not path.exists() else path.read_text().splitlines()

    def note(self, part, fault, happened):
        """Take a row."""
        row = f"| {fault} | {cell(happened)} |"
        self.rows[part].add(row)
        assert self.write or row in self.lines, (
            f"docs/reliability.md lacks, or has otherwise: {row}"
        )

    def finish(self):
        """Write the page, if that is wanted; the faults stay where no test noted one."""
        if self.write:
            faults = self.faults() if any(self.rows.values()) else self.path.read_text()
            self.path.write_text(faults.partition("\n## Figures\n")[0] + self.figures.text())

    def faults(self):
        """The page without its figures."""
        text = HEAD
        for part, title in PARTS.items():
            text += f"\n## {title}\n\n| fault | what happened |\n|:--|:--|\n"
            text += "".join(f"{row}\n" for row in sorted(self.rows[part]))
        return text
