"""The published figures are consistent, but for what docs/published/README.md lists."""

from pathlib import Path

import pandas as pd
import pytest

from tools.results.tables import PUBLISHED, read_published

README = (Path(__file__).parents[2] / "docs" / "published" / "README.md").read_text("utf-8")
FIGURES = read_published().set_index(["method", "dataset"])
ROUNDING = 0.015  # half a unit of the last digit of base and new, and one of their mean
AVERAGED = 0.03  # the literature averages figures that were not rounded, or rounds them twice


def listed():
    """Method, data set and column of each value that the page names."""
    lines = README.partition("| row | printed |")[2].splitlines()[2:]
    cells = [line.split("|")[1].strip().rsplit(", ", 2) for line in lines if line.startswith("|")]
    return {(method, dataset, column.lower()) for method, dataset, column in cells}


def test_each_harmonic_mean_fits_its_row_or_is_listed():
    found = 2 / (1 / FIGURES.base + 1 / FIGURES.new)
    wrong = FIGURES[(found - FIGURES.hm).abs() > ROUNDING]
    assert set(wrong.index) == {row[:2] for row in listed()}


def test_averages_are_means_of_the_data_sets():
    figures = FIGURES.copy()
    figures.loc[("CoOp", "ImageNet"), "new"] = 67.88  # as listed
    for method, part in figures.groupby("method"):
        sets = part.drop((method, "Average"))
        assert len(sets) == 11
        for column in ("base", "new"):
            printed = part.loc[(method, "Average"), column]
            assert sets[column].mean() == pytest.approx(printed, abs=AVERAGED), (method, column)


def test_each_source_is_described_with_its_methods():
    rows = pd.read_csv(PUBLISHED).groupby("source")["method"].unique()
    for source, methods in rows.items():
        (line,) = (line for line in README.splitlines() if line.startswith(f"| {source} |"))
        described = line.split("|")[2]
        for method in methods:
            assert method.split(" w/ ")[-1] in described, (source, method)
