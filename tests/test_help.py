"""Every tool answers --help, and ends with an example that can be typed.

The scripts: see tests/scripts/test_scripts.py.
"""

from pathlib import Path

import pytest

from tests.commands import ParsedError, examples, understand

PROJECT = Path(__file__).parents[1]
TOOLS = ["train.py"] + [
    str(path.relative_to(PROJECT))
    for folder in ("tools", "lab")
    for path in sorted((PROJECT / folder).glob("*.py"))
    if 'if __name__ == "__main__"' in path.read_text()
]


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_end_their_help_with_an_example(tool, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        understand(tool, ["--help"], monkeypatch)
    assert end.value.code == 0
    said = capsys.readouterr().out
    for program, *words in examples(said):
        if program == tool:
            with pytest.raises(ParsedError):
                understand(tool, words, monkeypatch)
        else:
            assert tool == "tools/run_protocol.py"
