"""Figures of docs/reliability.md: the page shows what was recorded, and what large inputs cost."""


def test_the_page_shows_the_recorded_figures(figures, table):
    assert figures.write or table.path.read_text().endswith(figures.text())
