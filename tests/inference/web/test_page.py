"""The page in a browser: upload, type, predict; what goes wrong is a sentence."""

import re
import socket

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="Gradio is not installed")


@pytest.fixture
def page(browser, served):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.faults, page.elsewhere = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda asked: page.elsewhere.append(asked.url))
    page.goto(served[0])
    page.get_by_role("button", name="Predict").wait_for()
    yield page
    context.close()


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a picture.png"
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def upload(page, path):
    with page.expect_response(re.compile("/upload")):
        page.locator("input[type=file]").first.set_input_files(path)


def upload_picture(page, path):
    """Upload a picture 90 pixels wide, and wait until it is shown."""
    upload(page, path)
    page.wait_for_function("() => [...document.images].some(i => i.naturalWidth == 90)")


def predict(page):
    page.get_by_role("button", name="Predict").click()


def test_upload_type_predict(page, picture, served, tmp_path):
    upload_picture(page, picture)
    page.get_by_label("Class names").first.fill("red fox, snowy owl, teapot")
    predict(page)
    page.locator(".answer .card").nth(1).wait_for()
    assert page.locator(".answer .title").all_inner_texts() == [
        "Spotlighter on CoOp",
        "Zero-shot CLIP",
    ]
    rows = page.locator(".answer .row .name").all_inner_texts()
    assert sorted(rows) == sorted(2 * ["red fox", "snowy owl", "teapot"]), "both know all three"
    drawn = page.locator(".answer img")
    assert drawn.count() == 3
    shapes = drawn.evaluate_all("all => all.map(i => i.naturalWidth / i.naturalHeight)")
    assert shapes == pytest.approx(3 * [90 / 70], abs=1 / 32), "that of the photograph"
    assert page.faults == []
    local = (served[0], f"http://127.0.0.1:{served[1]}/", "data:", "blob:")
    assert [url for url in page.elsewhere if not url.startswith(local)] == []
    assert len(page.screenshot(path=tmp_path / "shot.png")) > 10_000


def test_a_phone_sees_the_answer_and_a_long_name_is_cut(page, picture):
    page.set_viewport_size({"width": 390, "height": 844})
    upload_picture(page, picture)
    long = "a name that is as long as a sentence because somebody wrote one, which is allowed"
    page.get_by_label("Class names").first.fill(f"{long.replace(',', ';')}\nowl")
    predict(page)
    page.locator(".answer .card").nth(1).wait_for()
    page.wait_for_function(
        "() => { const y = document.querySelector('.answer').getBoundingClientRect().top;"
        " return -50 < y && y < 422; }"
    )
    name = page.locator(".row .name").filter(has_text="as long as a sentence").first
    assert name.get_attribute("title") == long.replace(",", ";")
    assert name.evaluate("e => e.scrollWidth > e.clientWidth"), "it is cut"
    name.focus()
    assert name.evaluate("e => e.scrollWidth <= e.clientWidth"), "tapped, it unfolds"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.faults == []


def test_mistakes_are_sentences(page, picture, tmp_path):
    bad, pdf = tmp_path / "bad.png", tmp_path / "letter.pdf"
    bad.write_text("no picture")
    pdf.write_text("%PDF-1.7")
    predict(page)
    page.get_by_text("there is no picture yet").wait_for()
    for path, said in ((bad, "it is of no format"), (pdf, "it is a PDF; save the page")):
        upload(page, path)
        page.get_by_text(f"{path.name} cannot be read as a picture: {said}").wait_for()
        assert page.locator(".problem").count() == 1
        told = page.locator(".problem").inner_text()
        assert "/" not in told.split("cannot be read")[0], "the folder of uploads is not told"
    page.get_by_label("Class names").first.fill("owl")
    upload_picture(page, picture)
    predict(page)
    page.get_by_text("one class (owl) leaves no choice").wait_for()
    assert page.faults == []


def test_a_heic_picture_is_shown_and_answered(page, tmp_path):
    pytest.importorskip("pillow_heif", exc_type=ImportError)
    path = tmp_path / "IMG_1.HEIC"
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, format="HEIF")
    upload_picture(page, path)
    page.locator("[data-testid=image] img, .image-frame img").first.wait_for()
    predict(page)
    page.locator(".answer .card").nth(1).wait_for()
    assert page.faults == []


def test_only_this_machine_is_answered(served):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", int(served[1])), timeout=5)


def test_ports_that_are_taken_are_passed_over():
    from inference.web.page import free_port

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < free_port("127.0.0.1", port) < port + 20


def test_a_run_shows_test_pictures_of_its_own_data(run, toy_root, tmp_path):
    from inference.web.page import example_pictures
    from tools.app import parse_args

    run("CoOp", OPTIM__MAX_EPOCH=1)
    root = parse_args(["--model-dir", "any"]).root
    found = example_pictures(str(tmp_path / "run"), root)
    assert found == [str(toy_root / "toy" / "images" / f"test_{c}_0.png") for c in range(6)]
    assert example_pictures(str(tmp_path / "run"), str(tmp_path)) == []


def test_a_page_that_does_not_answer_is_a_sentence(tmp_path):
    from inference.web.page import launch

    class Blocks:
        def launch(self, **_):
            raise ValueError("When localhost is not accessible, a shareable link must be created.")

    with pytest.raises(OSError, match=r"does not answer at http://127\.0\.0\.1:\d+; .*NO_PROXY"):
        launch(Blocks(), tmp_path, "127.0.0.1", 0)
