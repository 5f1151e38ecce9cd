"""The page, in Gradio: questions on the left, answers on the right."""

import fcntl
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import gradio as gr
from dassl.data.datasets import build_dataset

from datasets.pictures import KINDS, open_picture
from inference.open import config_of
from inference.web.answer import Answerer
from inference.web.guard import UPLOAD, middleware, upload_in
from inference.web.markup import markup, problem
from models.spotlighter import NEW_CLASSES
from runs.draw import one_a_class
from runs.errors import sentence

EXAMPLES = 6  # pictures
EVERY, KEPT = 60, 1800  # seconds: between two removals of uploads; after the last use of one
WAITING = 16  # questions that may wait for their turn
IN_TURN = "in turn"  # what is asked is answered one by one, in the order of the clicks
AS_TRAINED = "as the run says"
PORTS = 20  # that are tried, from --port on
FEW = 10  # runs among which nobody searches
BROWSABLE = tuple(s for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF") for s in KINDS[kind])
# To the answer, unless it is in sight, as where columns are below each other.
SCROLL = """() => {
  const place = document.querySelector("#answer .answer");
  if (place && place.getBoundingClientRect().top > 0.5 * window.innerHeight)
    place.scrollIntoView({behavior: "smooth"});
}"""
# A picture that is pasted is uploaded like one that is chosen.
PASTE = """() => document.addEventListener("paste", event => {
  const input = document.querySelector("input[type=file]");
  if (!input || !event.clipboardData.files.length) return;
  input.files = event.clipboardData.files;
  input.dispatchEvent(new Event("change", {bubbles: true}));
})"""
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


def path_of(upload: Any) -> str | None:
    """The path of an upload, unopened: what opens it reports what is wrong with it."""
    return getattr(upload, "path", None)


async def unchanged(path: Any) -> Any:
    """Gradio would copy a posted path to the uploads, or fetch it; this leaves it alone."""
    return path


def takes_uploads(component: Any) -> Any:
    """A component whose posted path comes to us as it is; a subclass would have a .pyi written.

    A handler returns its value, never another component: that would take its place, unchanged.
    """
    component.preprocess = path_of
    component.async_move_resource_to_block_cache = unchanged
    return component


def example_pictures(model_dir: str | Path, root: str) -> list[str]:
    """Test pictures of several classes, if the data set of the run is there."""
    try:
        test = build_dataset(config_of(model_dir, root)).test
    except (OSError, ValueError):
        return []
    return [item.impath for item in one_a_class(test, EXAMPLES)]


def said(error: Exception, picture: str | None) -> str:
    """An error as a sentence on the page, without the folder of an upload."""
    return problem(sentence(error).replace(f"{Path(picture or '.').parent}/", ""))


def browsable(path: Path) -> str:
    """The path of a picture that browsers show: itself, or a copy; ValueError if it is none."""
    picture = open_picture(path, upright=True)
    if path.suffix.lower() in BROWSABLE:
        return str(path)
    copy = path.with_name(f"{path.stem}_{path.suffix[1:]}.png")
    picture.save(copy, compress_level=1)
    return str(copy)


class Handlers:
    """What the page does; mistakes are answered with a sentence."""

    def __init__(self, answerer: Answerer, folder: Path) -> None:
        """`folder` is where pictures are taken from, and nowhere else."""
        self.answerer, self.folder = answerer, folder

    def take(self, upload: str | None) -> tuple[None, str | None, Any, str | None, str]:
        """A new picture: empties the place for uploads and the answer, and shows the picture.

        It is the one that later questions are about, whatever was on the page when they were asked.
        """
        try:
            path = browsable(upload_in(self.folder, upload or ""))
            return None, path, gr.Column(visible=True), path, ""
        except (ValueError, OSError, MemoryError) as error:
            return None, None, gr.Column(visible=False), None, said(error, upload)

    def take_example(self, sample: list[str]) -> tuple[None, str | None, Any, str | None, str]:
        """The same with a test picture, which is copied to the uploads."""
        copy = Path(tempfile.mkdtemp(dir=self.folder)) / Path(sample[0]).name
        with suppress(OSError):  # it is gone, as the sentence of `take` will say
            shutil.copy(sample[0], copy)
        return self.take(str(copy))

    def choose(self, run: str, names: str) -> tuple[Any, Any, str]:
        """Another run: its class names, unless there are some of one's own; its test pictures."""
        try:
            own = "\n".join(self.answerer.names(run))
        except (ValueError, OSError, MemoryError) as error:
            return gr.skip(), gr.Dataset(samples=[], visible=False), said(error, None)
        samples = example_pictures(self.answerer.runs[run], self.answerer.root)
        shown = gr.Dataset(samples=[[path] for path in samples], visible=bool(samples))
        return own if self.answerer.is_own(names) else gr.skip(), shown, ""

    def predict(
        self, picture: str | None, names: str, new: str, threshold: float, run: str
    ) -> str:
        """The answer, as HTML."""
        try:
            if picture is not None:
                path = upload_in(self.folder, picture)
                os.utime(path)  # it is in use, so it is kept
            new = "" if new == AS_TRAINED else new
            return markup(self.answerer.answer(picture, names, new, threshold, run))
        except (ValueError, OSError, MemoryError) as error:
            return said(error, picture)


def build_page(answerer: Answerer, folder: Path) -> gr.Blocks:
    """The page; it takes pictures from `folder` alone."""
    do, runs = Handlers(answerer, folder), list(answerer.runs)
    samples = example_pictures(answerer.runs[runs[0]], answerer.root)
    with gr.Blocks(
        title="Spotlighter", analytics_enabled=False, delete_cache=(EVERY, KEPT)
    ) as page:
        gr.Markdown("# Spotlighter\nChoose a photo, list the class names, press Predict.")
        with gr.Row():
            with gr.Column(scale=1):
                upload = takes_uploads(gr.File(label="Picture", height=140))
                with gr.Column(visible=False) as frame:
                    picture = gr.Image(
                        show_label=False, height=260, interactive=False, buttons=["fullscreen"]
                    )
                    newest = gr.State()  # its path, kept here: a browser may be a picture behind
                run = gr.Dropdown(
                    runs, value=runs[0], label="Model", filterable=len(runs) > FEW,
                    info="The embedded one, or a run below output/.",
                )
                names = gr.Textbox(
                    "\n".join(answerer.class_names), lines=6, max_lines=6,
                    label="Class names", info="One a line, or with commas between.",
                )
                with gr.Accordion("Options", open=False):
                    new, threshold = options()
                button = gr.Button("Predict", variant="primary")
                examples = gr.Dataset(
                    components=[gr.Image(visible=False)], samples=[[path] for path in samples],
                    type="values", label="Test pictures", visible=bool(samples),
                )
            with gr.Column(scale=2):
                answer = gr.HTML(elem_id="answer")
        turn: dict[str, Any] = {"concurrency_id": IN_TURN}
        taken = [upload, picture, frame, newest, answer]
        took = upload.upload(do.take, upload, taken, api_name="take", **turn)
        examples.click(do.take_example, examples, taken, api_name="take_example", **turn)
        chosen = [names, examples, answer]
        run.input(do.choose, [run, names], chosen, api_name="choose", **turn)
        asked, wants = [newest, names, new, threshold, run], [button.click, names.submit]
        answered = gr.on(wants, do.predict, asked, answer, api_name="predict", **turn)
        for done in (took, answered):
            done.then(None, js=SCROLL)
        page.load(None, js=PASTE)
    page.queue(max_size=WAITING, api_open=False, default_concurrency_limit=1)
    return page


def options() -> tuple[gr.Radio, gr.Slider]:
    """What is done with new classes, and below which probability an answer is unsure."""
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
    return new, threshold


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
