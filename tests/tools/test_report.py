"""The page, read by a browser where there is one."""

import io
import itertools
import json
import re

import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from runs.figure_style import plt
from tests.tools.conftest import DIAGRAM, write_run
from tools import report
from tools.report import spotlights
from tools.results import figures


@pytest.fixture(scope="session")
def page_path(tree):
    path = tree / "out" / "report.html"
    assert report.main([str(tree), "--output", str(path), "--title", "A <b> & page"]) == 0
    return path


@pytest.fixture(scope="session")
def html(page_path):
    return page_path.read_text()


def test_the_page_needs_no_network(html):
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"@import|url\(|fetch\(", html)


def test_the_page_has_every_part(html):
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == [
        "Base to new",
        "All classes",
        "Cross-dataset, trained on EmojiFood",
        "Reliability diagrams",
        "Confusion",
        "Training curves",
        "Runs",
    ]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    for expected in (
        "EmojiFood: accuracy by trainer",
        "average: accuracy by trainer",
        "mean of HMs over data sets",
        "EmojiFood: accuracy over training pictures a class",
        "EmojiFood: accuracy by confidence, base and new classes",
        "EmojiFood: accuracy by confidence, all classes",
        "EuroSAT, base classes: CoOp (tiny_emoji, 16 shots), percent of each true class",
        "EmojiFaces, base classes: seed 1, 16 shots, means over the batches of an epoch",
    ):
        assert expected in captions


def test_nll_and_ece_are_in_the_table(html):
    first = html.split("<table", 2)[1]
    headings = re.findall(r'<button type="button">(.*?)</button>', first)
    assert headings[-4:] == ["nll base", "nll new", "ece base", "ece new"]
    assert '<td data-order="1.25" class="number">1.250 ± 0.000</td>' in first


def test_a_reliability_diagram_has_a_panel_for_each_trainer(tree):
    """The pictures of both seeds together; a trainer's most shots; base and new in one panel."""
    runs = report.rows.load_runs(tree)
    own = [run for run in runs if run["dataset"] == "EmojiFood"]
    for run in own:
        run["record"]["reliability"] = dict(DIAGRAM, n=[run["shots"] + n for n in DIAGRAM["n"]])
        run["record"]["reliability"] |= {"confidence": 15 * [50.0], "accuracy": 15 * [40.0]}
    panels = report.panels_of(pd.DataFrame(own).assign(label="CoOp"), ["base", "new"])
    assert list(panels) == ["CoOp"]
    by_trainer = report.panels_of(pd.DataFrame(own).assign(label=report.rows.labels), ["all"])
    assert list(by_trainer) == ["ZeroshotCLIP", "CoOp", "MaPLe"]
    assert list(panels["CoOp"]) == ["base", "new"]
    diagram, ece = panels["CoOp"]["base"]
    assert diagram["n"] == [6 * (16 + n) for n in DIAGRAM["n"]]  # three trainers, two seeds
    assert ece == 7.5
    figure = figures.reliability({name: panels["CoOp"] for name in "abcd"})
    assert [axes.get_title() for axes in figure.axes] == [
        f"{name}\nece base 7.5, new 7.5" for name in "abcd"
    ]
    lines = figure.axes[0].lines[1:]
    assert [line.get_label() for line in lines] == ["base", "new"]
    assert lines[0].get_xydata().tolist() == 15 * [[50.0, 40.0]]
    plt.close(figure)


def many(scores, shots=(1, 16)):
    """A summary of one data set with a row for each label and number of shots."""
    rows = [
        {"label": label, "dataset": "A", "shots": count, "all": score + count, "all_std": 0.0}
        for label, score in scores.items()
        for count in ((0,) if label == "CLIP" else shots)
    ]
    return pd.DataFrame(rows)


def test_few_shot_curves_of_many_trainers_are_labelled_at_their_ends():
    """Labels stand in the order of the last points, and no two of them overlap."""
    scores = {f"trainer {i}": 40 + (7 * i % 22) / 10 for i in range(22)} | {"CLIP": 30.0}
    figure = figures.shot_curves(many(scores))
    figure.canvas.draw()
    texts = sorted(figure.axes[0].texts, key=lambda text: Text.get_window_extent(text).y0)
    assert [text.get_text() for text in texts] == sorted(scores, key=lambda n: scores[n])
    boxes = [Text.get_window_extent(text) for text in texts]
    assert all(low.y1 < high.y0 + 1 for low, high in itertools.pairwise(boxes))
    (dashed,) = (line for line in figure.axes[0].lines if line.get_linestyle() == "--")
    assert list(dashed.get_ydata()) == [30, 30]
    styles = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(styles) >= 22


@pytest.mark.parametrize(
    ("heights", "spread_out"),
    [
        ([0.0, 0.5, 1.0], [0.0, 0.5, 1.0]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.5, 0.5, 0.5, 0.9], [0.4, 0.5, 0.6, 0.9]),
    ],
)
def test_heights_are_spread_around_where_they_were(heights, spread_out):
    assert figures.spread(heights, 0.1) == pytest.approx(spread_out)


def test_a_radar_shows_the_best_of_many():
    rows = [
        {"label": f"t{i}", "dataset": name, "hm_mean": 10.0 * i + bonus}
        for i in range(20)
        for name, bonus in (("A", 0), ("B", 3))
    ]
    assert report.best_labels(pd.DataFrame(rows), "hm_mean") == [f"t{i}" for i in range(19, 11, -1)]


def test_what_is_known_of_new_classes_stands_below_the_table(html):
    (found,) = re.findall(r'<p class="foot">(.*?)</p>', html)
    known = "zero-shot CLIP (ZeroshotCLIP); the prompts go on (CoOp, MaPLe)."
    assert sorted(found.split(": ")[1][:-1].split("; ")) == sorted(known[:-1].split("; "))


@pytest.mark.parametrize("wrong", [3, {"n": [1]}, DIAGRAM | {"accuracy": 15 * ["x"]}])
def test_a_diagram_that_is_none_is_named(tmp_path, wrong):
    folder = write_run(tmp_path)
    path = folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"reliability": wrong}))
    assert report.main([str(tmp_path)]) == 0
    html = (tmp_path / "report.html").read_text()
    assert "EmojiFood: no n, confidence and accuracy of 15 bins: " in html


def test_missing_is_missing_and_published_is_labelled(html):
    rows = re.findall(r"<tr>\s*((?:<td[^>]*>[^<]*</td>)+)", html)
    (maple,) = (row for row in rows if ">EmojiFaces<" in row and ">MaPLe<" in row)
    assert maple.count('<td data-order="" class="number">missing</td>') == 3  # new and both HMs
    assert re.search(r'<tr class="published">\s*<td data-order="EuroSAT" class="word">', html)
    assert "published, arXiv 2509.00905" in html


def test_words_of_users_are_escaped_and_runs_are_complete(html):
    assert "A &lt;b&gt; &amp; page" in html
    assert "LR: 0.02 # &lt;b&gt;&amp;" in html
    assert html.count("<details>") == 3 * (3 * 2 * 2 + 3 * 2 + 1) - 2 + 3  # and of each trainer
    assert "<summary>MaPLe: 17 runs</summary>" in html
    assert "git abc123; python 3.11, torch 2.14" in html


def test_nothing_found_is_exit_code_1(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 1
    assert f"no results below {tmp_path}" in capsys.readouterr().err


def test_kept_patches_of_a_spotlighter_run_are_in_the_page(run, tmp_path, capsys):
    run("Spotlighter", OPTIM__MAX_EPOCH=1)
    assert report.main([str(tmp_path / "run")]) == 0
    html = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>Patches that Spotlighter kept</h2>" in html
    assert '<img src="data:image/jpeg;base64,' in html
    for path in (tmp_path / "run" / "prompt_learner").glob("*"):
        path.unlink()
    report.main([str(tmp_path / "run")])
    html = (tmp_path / "run" / "report.html").read_text()
    assert "could not be drawn: no checkpoint " in html
    run("CoOp", "other", OPTIM__MAX_EPOCH=1)
    with pytest.raises(ValueError, match="other is a run of CoOp; only runs of Spotlighter"):
        spotlights(tmp_path / "other", "")


@pytest.fixture
def opened(browser, page_path):
    """The page in a browser without network; what went wrong and what was asked for."""
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.faults, page.requests = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda message: page.faults.append(message.text))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(page_path.as_uri())
    yield page
    context.close()


def test_it_loads_without_errors(opened, page_path):
    assert opened.faults == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [page_path.as_uri()]
    sizes = opened.eval_on_selector_all("img", "all => all.map(i => i.naturalWidth)")
    assert len(sizes) > 10
    assert min(sizes) > 100


def column(page, heading):
    headings = page.locator("table").first.locator("th").all_inner_texts()
    i = [h.strip() for h in headings].index(heading) + 1
    return page.locator("table").first.locator(f"tbody td:nth-child({i})").all_inner_texts()


def test_a_click_sorts_by_value_and_a_second_one_turns_it_round(opened):
    def numbers(cells):
        return [float(cell.split()[0]) for cell in cells if cell != "missing"]

    head = opened.locator("table").first.get_by_role("button", name="new", exact=True)
    before = column(opened, "new")
    head.click()
    up = column(opened, "new")
    assert sorted(before) == sorted(up)
    assert numbers(up) == sorted(numbers(up)) != numbers(before)
    assert up[-1] == "missing", "what is missing stands last, whatever the order"
    assert opened.locator("th[aria-sort=ascending]").count() == 1
    head.click()
    down = column(opened, "new")
    assert numbers(down) == numbers(up)[::-1]
    assert down[-1] == "missing"
    opened.locator("table").first.get_by_role("button", name="trainer").click()
    trainers = column(opened, "trainer")
    assert trainers == sorted(trainers, key=str.lower)
    assert opened.faults == []


def test_it_is_readable_on_a_phone(opened):
    opened.set_viewport_size({"width": 390, "height": 844})
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not opened.evaluate(wide)
    widths = opened.eval_on_selector_all("figure", "all => all.map(f => f.offsetWidth)")
    assert max(widths) <= 390
    assert min(widths) > 300


def test_a_table_that_goes_on_to_the_right_has_a_shade_there(opened):
    opened.set_viewport_size({"width": 390, "height": 844})
    table = opened.locator(".scroll").first
    row = table.locator("tbody tr:not(.published)").first

    def brightness():
        """Of the right end of a row, below its text."""
        row.scroll_into_view_if_needed()
        picture = Image.open(io.BytesIO(opened.screenshot())).convert("L")
        place, cell = table.bounding_box(), row.bounding_box()
        x, y = place["x"] + place["width"] - 4, cell["y"] + cell["height"] - 4
        return picture.getpixel((round(x), round(y)))

    assert brightness() < 230
    table.evaluate("place => place.scrollLeft = 1e5")
    assert brightness() == 255, "it ends here"


def test_pictures_are_dimmed_in_the_dark_and_drawings_turned_over(opened):
    add = "kind => { const i = new Image(); i.src = `data:image/${kind};base64,`; document"
    add += ".querySelector('figure').append(i); return getComputedStyle(i).filter; }"
    assert opened.evaluate(add, "jpeg") == "none"
    opened.emulate_media(color_scheme="dark")
    assert opened.evaluate(add, "jpeg") == "brightness(0.8)"
    assert opened.evaluate(add, "svg+xml").startswith("invert(")


def test_it_is_readable_in_print(opened):
    opened.emulate_media(media="print")
    opened.set_viewport_size({"width": 700, "height": 1000})  # A4 with margins
    cut = "all => all.filter(t => t.scrollWidth > t.clientWidth).length"
    assert opened.eval_on_selector_all(".scroll", cut) == 0
    assert len(opened.pdf(format="A4")) > 10_000


def test_all_training_pictures_are_called_so(tmp_path):
    write_run(tmp_path, classes="all", shots=-1)
    assert report.main([str(tmp_path)]) == 0
    html = (tmp_path / "report.html").read_text()
    assert "all classes, all pictures, seed" in html
    assert "-1 shots" not in html
    assert "HM of means" not in html  # nothing is paired


def test_an_average_that_nothing_has_is_no_chart(tmp_path):
    """Each trainer lacks a data set of the other."""
    for trainer, dataset in (("CoOp", "EuroSAT"), ("MaPLe", "EmojiFood")):
        write_run(tmp_path, trainer=trainer, dataset=dataset, source=dataset, classes="all")
    assert report.main([str(tmp_path)]) == 0
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", (tmp_path / "report.html").read_text())
    assert "EuroSAT: accuracy by trainer" in captions
    assert not [caption for caption in captions if caption.startswith("average")]
