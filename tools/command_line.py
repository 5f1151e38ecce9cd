"""A tool's parser from the docstring of its module: what it does first, its examples last."""

from __future__ import annotations

import argparse


def parser_of(doc: str) -> argparse.ArgumentParser:
    """A parser whose help says what the docstring says.

    Args:
        doc: a line that says what the tool does; paragraphs, of which one begins with "Usage:" and
            holds commands that can be typed as they stand.
    """
    first, *paragraphs = doc.strip().split("\n\n")
    [usage] = [paragraph for paragraph in paragraphs if paragraph.startswith("Usage:\n")]
    paragraphs.remove(usage)
    examples = usage.replace("Usage:", "examples:", 1)
    return argparse.ArgumentParser(
        description="\n\n".join([first, *paragraphs]),
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
