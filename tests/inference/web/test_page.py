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


def predict(page):
    page.get_by_role("button", name="Predict").click()


def test_upload_type_predict(page, picture, served, tmp_path):
    upload(page, picture)
    page.get_by_label("Class names").fill("red fox, snowy owl, teapot")
    predict(page)
    shown = page.locator("[data-testid=label-output-value]")
    shown.nth(1).wait_for()
    names = {"red fox", "snowy owl", "teapot"}
    assert set(shown.all_inner_texts()) <= names
    rows = page.locator(".confidence-set")
    text = " ".join(rows.all_inner_texts())
    assert all(text.count(name) == 2 for name in names), "both models know all three"
    looked_at = page.locator("img[data-testid=detailed-image], .image-frame img").last
    looked_at.wait_for()
    assert looked_at.evaluate("i => i.naturalWidth > 3 * i.naturalHeight")
    assert page.faults == []
    local = (served[0], f"http://127.0.0.1:{served[1]}/", "data:", "blob:")
    assert [url for url in page.elsewhere if not url.startswith(local)] == []
    assert len(page.screenshot(path=tmp_path / "shot.png")) > 10_000


def test_mistakes_are_sentences(page, picture, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    said = page.locator(".toast-body")
    predict(page)
    page.get_by_text("there is no picture yet").wait_for()
    upload(page, bad)
    predict(page)
    page.get_by_text("bad.png cannot be read as a picture").wait_for()
    assert "/" not in said.last.inner_text().split("cannot be read")[0]
    page.reload()
    page.get_by_label("Class names").fill("owl")
    upload(page, picture)
    predict(page)
    page.get_by_text("one class (owl) leaves no choice").wait_for()
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
