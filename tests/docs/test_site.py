"""The site is built without a warning, from docs/ alone, and asks no other host for anything."""

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from trainers import TRAINERS

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("material", "mkdocstrings", "mkdocs_jupyter"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder


def words(page):
    """The text of a page's article."""
    article = re.search(r"<article.*?</article>", page.read_text(), re.DOTALL)[0]
    return " ".join(unescape(re.sub(r"<[^>]+>", "", article)).split())


@pytest.mark.slow
def test_every_page_is_in_the_site(site):
    for path in (PROJECT / "docs").rglob("*.md"):
        name = path.relative_to(PROJECT / "docs").with_suffix(".html")
        name = name.with_name("index.html") if path.stem == "README" else name
        assert (site / name).is_file(), name
    for file in ("tutorial.html", "tutorial.ipynb", "report.html", "img/cost_by_tokens.png"):
        assert (site / file).is_file(), file


@pytest.mark.slow
def test_no_page_asks_another_host(site):
    asked = r"<(?:script|img|iframe)[^>]* src=\"(https?:[^\"]+)|<link[^>]* href=\"(https?:[^\"]+)"
    for page in site.rglob("*.html"):
        links = re.findall(asked, page.read_text())
        assert not links, page


@pytest.mark.slow
def test_equations_can_be_read(site):
    said = words(site / "method.html")
    for equation in (
        "logits = v_b z_b + v_0 z_0 + v_1 z_1 + v_2 z_2 + v_12 z_12 + offset_c",
        "with S_jcm = <R_I[j], R_T[c, m]>",
        "minimise over v >= 0: 1/n sum_i -log softmax(sum_p v_p z_p[i])[y_i] + sum_p RIDGE_p",
    ):
        assert equation in said


@pytest.mark.slow
def test_the_api_is_in_the_site(site):
    trainers = (site / "api" / "trainers.html").read_text()
    for trainer in TRAINERS:
        assert f'id="{trainer.__module__}.{trainer.__name__}"' in trainers
    models = (site / "api" / "models.html").read_text()
    for path in (PROJECT / "models").rglob("[!_]*.py"):
        name = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        assert f'id="{name}"' in models, name
    engine = words(site / "api" / "engine.html")
    for name in ("get_cfg_default", "build_trainer", "TrainerX", "DataManager", "set_random_seed"):
        assert name in engine
