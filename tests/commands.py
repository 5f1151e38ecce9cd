"""Commands as they stand in pages and docstrings, and whether they would be understood."""

import argparse
import os
import re
import runpy
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import train
from runs.config import build_config
from tools import run_protocol
from tools.sweeps import names
from tools.sweeps.names import check_dataset

PROJECT = Path(__file__).parents[1]
END = 12  # lines of a help


class ParsedError(Exception):
    """The command line was understood."""


def commands(text):
    """What is typed, in blocks of code and between backticks: (variables before it, words)."""
    blocks = re.findall(r"^(?: {3,}|\t).*$", re.sub(r"\\\n\s*", "", text), re.MULTILINE)
    fenced = "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)).replace("\\\n", "")
    found = []
    for line in [*blocks, *fenced.splitlines(), *re.findall(r"`([^`\n]+)`", text)]:
        match = re.search(
            r"((?:[A-Z]+=(?:\"[^\"]*\"|\S+) )*)((?:python|bash) \S+\.(?:py|sh)\b.*)", line
        )
        if match is None or "..." in line or "$" in line:
            continue
        words = shlex.split(match[2].split(" | ")[0], comments=True)
        variables = dict(word.split("=", 1) for word in shlex.split(match[1]))
        if re.fullmatch(r"(train|(tools|lab)/\w+)\.py|scripts/\w+\.sh", words[1]):
            found.append((variables, words[1:]))
    return found


def examples(text):
    """The words of the commands that a help ends with."""
    end = text.rstrip().splitlines()[-END:]
    assert any("xample" in line for line in end), text
    found = commands("\n".join(f"    {line}" for line in end))
    assert found, text
    return [words for _, words in found]


def understand(tool, words, monkeypatch):
    """Have a tool read its command line, and no more.

    Raises:
        ParsedError: it was understood.
        SystemExit: it was not, or it asked for help.
    """

    def and_stop(read):
        def parse(*args, **kwargs):
            found = read(*args, **kwargs)
            if sys._getframe(1).f_globals["__name__"] == "argparse":  # one calls the other
                return found
            raise ParsedError(found)

        return parse

    parser = argparse.ArgumentParser
    with monkeypatch.context() as patch:
        for name in ("parse_args", "parse_known_args", "parse_intermixed_args"):
            patch.setattr(parser, name, and_stop(getattr(parser, name)))
        patch.setattr(sys, "argv", [tool, *words])
        runpy.run_path(str(PROJECT / tool), run_name="__main__")


def check(variables, words, monkeypatch):
    """Fail where a command would be refused for what it says."""
    program, *rest = words
    assert (PROJECT / program).is_file()
    if program == "train.py":
        build_config(train.parse_args(rest))
    elif program.endswith(".py"):
        with pytest.raises(ParsedError):
            understand(program, rest, monkeypatch)
    elif "run_protocol" in (PROJECT / program).read_text():
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", os.environ | variables)
            patch.setattr(names, "read_data", lambda *_: SimpleNamespace(label="the_readers_own"))
            args = run_protocol.parse_arguments([Path(program).stem, *rest])
            if rest != ["--help"]:
                assert run_protocol.jobs_of(args)
    elif Path(program).stem in ("demo", "compare"):
        for dataset in rest:
            check_dataset(dataset)
