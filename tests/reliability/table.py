"""docs/reliability.md: what was provoked, and what happened."""

HEAD = """\
# What goes wrong, and what happens then

Every row is a fault that a test provokes, and what was seen. The tests write this page, and fail
where it says something else than what they see:

    WRITE_TABLE=1 bash scripts/test.sh tests/reliability -m "thorough or not thorough"

OUT is the folder of a run, DATA that of the data sets. "Alike" means: weights, bank, optimiser,
random states, metrics and printed accuracy are equal bit for bit to those of a run that was left
alone (CPU, float32).
"""
PARTS = {
    "resume": "A run that is stopped",
    "files": "Damaged checkpoints",
    "system": "Disk, permissions, Ctrl-C, two runs",
    "processes": "Several processes, memory, what is left behind",
    "numbers": "Numbers that are none",
    "malicious": "Files from strangers",
    "identity": "A checkpoint that does not fit",
    "input": "Bad input",
}


class Table:
    """Rows as they are noted.

    Args:
        path: of the page.
        write: write the page at the end; otherwise it must have each row.
    """

    def __init__(self, path, write):
        self.path, self.write, self.rows = path, write, {part: set() for part in PARTS}
        self.lines = [] if write or not path.exists() else path.read_text().splitlines()

    def note(self, part, fault, happened):
        """Take a row."""
        happened = " ".join(happened.split()).replace("|", "/").replace("<", "&lt;")
        row = f"| {fault} | {happened} |"
        self.rows[part].add(row)
        assert self.write or row in self.lines, (
            f"docs/reliability.md lacks, or has otherwise: {row}"
        )

    def finish(self):
        """Write the page, if that is wanted."""
        if not self.write:
            return
        text = HEAD
        for part, title in PARTS.items():
            text += f"\n## {title}\n\n| fault | what happened |\n|:--|:--|\n"
            text += "".join(f"{row}\n" for row in sorted(self.rows[part]))
        self.path.write_text(text)
