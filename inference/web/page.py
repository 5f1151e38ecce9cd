"""The page, in Gradio: questions on the left, answers on the right."""

import fcntl
import html
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import gradio as gr
from dassl.data.datasets import build_dataset
from gradio.data_classes import ImageData

from inference.open import config_of
from inference.web.answer import TOP, Answer, Answerer
from inference.web.guard import UPLOAD, middleware, upload_in
from models.spotlighter import NEW_CLASSES
from runs.draw import one_a_class
from runs.errors import sentence

EXAMPLES = 6  # pictures
EVERY, KEPT = 60, 1800  # seconds: between two removals of uploads; after the last use of one
WAITING = 16  # predictions that may wait for their turn
AS_TRAINED = "as the run says"
PORTS = 20  # that are tried, from --port on
TEMPORARY = "GRADIO_TEMP_DIR"
PREFIX = "spotlighter_page_"  # of folders for uploads


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A folder for uploads and answers, removed at the end; those of killed pages go first."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), locked(left):
            if time.time() - left.stat().st_mtime > EVERY:  # a new page may not have locked it yet
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder, locked(Path(folder)):
        os.environ[TEMPORARY] = folder  # Gradio reads it where it makes a component
        try:
            yield Path(folder)
        finally:
            del os.environ[TEMPORARY]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder until the block or the process ends; an OSError if another process has it."""
    handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def path_of(upload: ImageData | None) -> str | None:
    """The path of an upload, unopened: what opens it reports what is wrong with it."""
    return None if upload is None else upload.path


async def unchanged(path: Any) -> Any:
    """Gradio would copy a posted path to the uploads, or fetch it; this leaves it alone."""
    return path


def example_pictures(model_dir: str, root: str) -> list[str]:
    """Test pictures of several classes, if the data set of the run is there."""
    try:
        test = build_dataset(config_of(model_dir, root)).test
    except (OSError, ValueError):
        return []
    return [item.impath for item in one_a_class(test, EXAMPLES)]


def toast(error: Exception, picture: str | None) -> gr.Error:
    """An error as a sentence on the page, without the folder of an upload."""
    text = sentence(error).replace(f"{Path(picture or '.').parent}/", "")
    return gr.Error(html.escape(text, quote=False), duration=None, print_exception=False)


def build_page(answerer: Answerer, folder: Path, examples: Sequence[str] = ()) -> gr.Blocks:
    """The page; it takes pictures from `folder` alone, and answers mistakes with a sentence."""

    def predict(picture: str | None, names: str, new: str, threshold: float) -> Answer:
        try:
            if picture is not None:
                path = upload_in(folder, picture)
                os.utime(path)  # it is in use, so it is kept
            return answerer.answer(picture, names, "" if new == AS_TRAINED else new, threshold)
        except (ValueError, OSError, MemoryError) as error:
            raise toast(error, picture) from error

    with gr.Blocks(
        title="Spotlighter", analytics_enabled=False, delete_cache=(EVERY, KEPT)
    ) as page:
        gr.Markdown("# Spotlighter\nUpload a photo, list the class names, press Predict.")
        with gr.Row():
            with gr.Column(scale=1):
                picture = gr.Image(sources=["upload", "clipboard"], label="Picture", height=260)
                picture.preprocess = path_of  # type: ignore  # a subclass would have Gradio write a .pyi here
                picture.async_move_resource_to_block_cache = unchanged  # type: ignore
                names = gr.Textbox(
                    "\n".join(answerer.class_names), lines=6, max_lines=6,
                    label="Class names", info="One a line, or with commas between.",
                )
                new = gr.Radio(
                    [AS_TRAINED, *NEW_CLASSES], value=AS_TRAINED,
                    label="Class names that were not in training",
                    info="inherit: similar classes' prototypes; text: text only; auto: the better "
                    "of the two on held-out training classes; off: prompts only",
                )
                threshold = gr.Slider(
                    0, 1, value=0, step=0.05, label="Unsure below",
                    info="A top probability below this is called unsure.",
                )
                button = gr.Button("Predict", variant="primary")
            with gr.Column(scale=2):
                with gr.Row():
                    tuned = gr.Label(label="Spotlighter", num_top_classes=TOP)
                    plain = gr.Label(label="Zero-shot CLIP", num_top_classes=TOP)
                unsure = gr.Markdown()
                drawn = gr.Image(
                    label="Maps and kept patches", show_label=False, interactive=False, buttons=[]
                )
        if examples:
            gr.Examples([[path] for path in examples], [picture], label="Test pictures")
        asked, answered = [picture, names, new, threshold], [tuned, plain, drawn, unsure]
        gr.on([button.click, names.submit], predict, asked, answered, api_name="predict")
    page.queue(max_size=WAITING, api_open=False, default_concurrency_limit=1)
    return page


def free_port(host: str, first: int) -> int:
    """The first free port from `first` on, any free one for 0; Gradio's own search is fixed."""
    last = min(first + PORTS - 1, 65535)
    for port in range(first, last + 1) if first else (0,):
        with suppress(OSError), closing(socket.socket()) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
            return int(tried.getsockname()[1])
    raise OSError(f"no free port from {first} to {last}; choose another (--port)")


def launch(page: gr.Blocks, folder: Path, host: str, port: int, open_browser: bool = False) -> str:
    """Serve the page of `build_page`; returns its address. An OSError says why it cannot."""
    port = free_port(host, port)
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, inbrowser=open_browser, share=False, quiet=True,
            prevent_thread_lock=True, max_file_size=UPLOAD, show_error=False,
            enable_monitoring=False, footer_links=[], app_kwargs={"middleware": middleware(folder)},
            theme=gr.themes.Default(font="sans-serif", font_mono="monospace"),
        )
    except ValueError as error:  # Gradio's: localhost is not accessible
        raise OSError(
            f"the page does not answer at http://{host}:{port}; start it again if the machine is "
            f"busy, or keep proxies from it (export NO_PROXY={host})"
        ) from error
    return str(address)
