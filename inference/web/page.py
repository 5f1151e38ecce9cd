"""The page itself, in Gradio: inputs on the left, answers on the right."""

from __future__ import annotations

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

import datasets  # noqa: F401  (registers the data sets)
from inference.web.answer import TOP, Answer, Answerer
from inference.web.guard import UPLOAD, middleware, upload_in
from models.spotlighter.memory import NEW_CLASSES
from runs.config import read_run_config
from runs.draw import one_a_class
from runs.errors import sentence

EXAMPLES = 6  # pictures
EVERY, KEPT = 60, 1800  # seconds between two removals; that an upload stays after its last use
WAITING = 16  # predictions that wait for their turn
AS_TRAINED = "as the run says"
PORTS = 20  # tried from --port on
LAST_PORT = 65535
TEMPORARY = "GRADIO_TEMP_DIR"
PREFIX = "spotlighter_page_"  # of folders for uploads


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A folder of this process's own for uploads and answers; it is removed at the end.

    What a page that was killed has left is removed at the beginning of the next.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), locked(left):
            if time.time() - left.stat().st_mtime > EVERY:  # else its page may just begin
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder, locked(Path(folder)):
        os.environ[TEMPORARY] = folder  # Gradio reads it where it makes a component
        try:
            yield Path(folder)
        finally:
            del os.environ[TEMPORARY]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Have a folder locked until the block or the process ends.

    Raises:
        OSError: another process has it, or it cannot be opened.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def path_of(upload: ImageData | None) -> str | None:
    """The file of an upload as it came; what is wrong with it is for whoever opens it to say."""
    return None if upload is None else upload.path


async def as_it_is(path: Any) -> Any:
    """In place of what Gradio does with a posted path: copy it to the uploads, or fetch it."""
    return path


def example_pictures(model_dir: str, root: str) -> list[str]:
    """Test pictures of several classes, where the data set of a run is at hand; else none."""
    cfg = read_run_config(model_dir)
    cfg.DATASET.ROOT = root or cfg.DATASET.ROOT
    try:
        test = build_dataset(cfg).test
    except (OSError, ValueError):
        return []
    return [item.impath for item in one_a_class(test, EXAMPLES)]


def shown(error: Exception, picture: str | None) -> gr.Error:
    """An error as the page shows it: a sentence, without the place of an upload."""
    said = sentence(error).replace(f"{Path(picture or '.').parent}/", "")
    said = html.escape(said, quote=False)  # the page takes it for HTML
    return gr.Error(said, duration=None, print_exception=False)


def build_page(answerer: Answerer, folder: Path, examples: Sequence[str] = ()) -> gr.Blocks:
    """The page; what goes wrong with an input is a sentence on it.

    Args:
        answerer: says what the pictures show.
        folder: of `upload_folder`; pictures from elsewhere are refused.
        examples: pictures to choose from.
    """

    def look(picture: str | None, names: str, new: str) -> Answer:
        try:
            if picture is not None:
                path = upload_in(folder, picture)
                os.utime(path)  # it is in use, so it is kept
            return answerer.answer(picture, names, "" if new == AS_TRAINED else new)
        except (ValueError, OSError, MemoryError) as error:
            raise shown(error, picture) from error

    with gr.Blocks(
        title="Spotlighter", analytics_enabled=False, delete_cache=(EVERY, KEPT)
    ) as page:
        gr.Markdown("# Spotlighter\nUpload a photo, list the class names, press Predict.")
        with gr.Row():
            with gr.Column(scale=1):
                picture = gr.Image(sources=["upload", "clipboard"], label="Picture", height=260)
                picture.preprocess = path_of  # type: ignore  # a subclass would have Gradio write a .pyi here
                picture.async_move_resource_to_block_cache = as_it_is  # type: ignore
                names = gr.Textbox(
                    "\n".join(answerer.class_names),
                    lines=6,
                    max_lines=6,
                    label="Class names",
                    info="A line each, or with commas between.",
                )
                new = gr.Radio(
                    [AS_TRAINED, *NEW_CLASSES],
                    value=AS_TRAINED,
                    label="Class names that were not in training",
                    info="inherit: similar classes' prototypes; text: text only; off: prompts only",
                )
                button = gr.Button("Predict", variant="primary")
            with gr.Column(scale=2):
                with gr.Row():
                    tuned = gr.Label(label="Spotlighter", num_top_classes=TOP)
                    plain = gr.Label(label="Zero-shot CLIP", num_top_classes=TOP)
                looked_at = gr.Image(
                    label="What was looked at",
                    show_label=False,
                    interactive=False,
                    buttons=[],
                )
        if examples:
            gr.Examples([[path] for path in examples], [picture], label="Test pictures")
        inputs, outputs = [picture, names, new], [tuned, plain, looked_at]
        gr.on([button.click, names.submit], look, inputs, outputs, api_name="predict")
    page.queue(max_size=WAITING, api_open=False, default_concurrency_limit=1)
    return page


def free_port(host: str, first: int) -> int:
    """The first free port from `first` on; any free one for 0.

    Raises:
        OSError: none of them is free.
    """
    last = min(first + PORTS - 1, LAST_PORT)
    for port in range(first, last + 1) if first else (0,):
        with closing(socket.socket()) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((host, port))
            except OSError:
                continue
            return int(tried.getsockname()[1])
    raise OSError(f"no free port from {first} to {last}; choose another (--port)")


def launch(
    page: gr.Blocks, folder: Path, host: str, port: int, open_browser: bool = False
) -> str:
    """Serve the page from now on; returns its address.

    Args:
        page: of `build_page`.
        folder: of the uploads.
        host: address of this machine.
        port: the first to be tried, 0 for any free one.
        open_browser: show the page.

    Raises:
        OSError: no port is free, or the page does not answer.
    """
    port = free_port(host, port)
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=UPLOAD,
            show_error=False,
            enable_monitoring=False,
            footer_links=[],
            app_kwargs={"middleware": middleware(folder)},
            theme=gr.themes.Default(font="sans-serif", font_mono="monospace"),
        )
    except ValueError as error:  # Gradio's: localhost is not accessible
        raise OSError(
            f"the page does not answer at http://{host}:{port}; start it again if the machine is "
            f"busy, or keep proxies from it (export NO_PROXY={host})"
        ) from error
    return str(address)
