"""The page itself, in Gradio: inputs on the left, answers on the right."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import gradio as gr
from dassl.data.datasets import build_dataset
from gradio.data_classes import ImageData

import datasets  # noqa: F401  (registers the data sets)
from models.inheritance import NEW_CLASSES
from tools.web.answer import TOP, Answer, Answerer
from trainers.faults import sentence
from trainers.kept_picture import one_a_class
from trainers.open_run import read_run_config

EXAMPLES = 6  # pictures
LARGEST = "50mb"  # of an upload
AS_TRAINED = "as the run says"
PORTS = 20  # tried from --port on


def path_of(upload: ImageData | None) -> str | None:
    """The file of an upload as it came; what is wrong with it is for whoever opens it to say."""
    return None if upload is None else upload.path


def example_pictures(model_dir: str, root: str) -> list[str]:
    """Test pictures of several classes, where the data set of a run is at hand; else none."""
    cfg = read_run_config(model_dir)
    cfg.DATASET.ROOT = root or cfg.DATASET.ROOT
    try:
        test = build_dataset(cfg).test
    except (OSError, ValueError):
        return []
    return [item.impath for item in one_a_class(test, EXAMPLES)]


def build_page(answerer: Answerer, examples: Sequence[str] = ()) -> gr.Blocks:
    """The page; what goes wrong with an input is a sentence on it."""

    def look(picture: str | None, names: str, new: str) -> Answer:
        try:
            return answerer.answer(picture, names, "" if new == AS_TRAINED else new)
        except (ValueError, OSError, MemoryError) as error:
            said = sentence(error).replace(f"{Path(picture or '.').parent}/", "")  # not its place
            raise gr.Error(said, duration=None, print_exception=False) from error

    with gr.Blocks(title="Spotlighter", analytics_enabled=False) as page:
        gr.Markdown("# Spotlighter\nDrop a picture, name classes, see what decides.")
        with gr.Row():
            with gr.Column(scale=1):
                picture = gr.Image(sources=["upload", "clipboard"], label="Picture", height=260)
                picture.preprocess = path_of  # a subclass would have Gradio write a .pyi here
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
                    label="Classes that the run has not seen",
                    info="inherit what seen ones learned; their text alone; nothing beside prompts",
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
    return page


def free_port(host: str, first: int) -> int:
    """The first free port from `first` on; any free one for 0.

    Raises:
        OSError: none of them is free.
    """
    for port in range(first, first + PORTS) if first else (0,):
        with closing(socket.socket()) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((host, port))
            except OSError:
                continue
            return int(tried.getsockname()[1])
    raise OSError(f"no free port from {first} to {first + PORTS - 1}; choose another (--port)")


def launch(page: gr.Blocks, host: str, port: int, open_browser: bool) -> None:
    """Serve until Ctrl-C."""
    _, address, _ = page.launch(
        server_name=host,
        server_port=free_port(host, port),
        inbrowser=open_browser,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=LARGEST,
        show_error=False,
        footer_links=[],
        theme=gr.themes.Default(font="sans-serif", font_mono="monospace"),
    )
    print(f"The page is at {address}; Ctrl-C ends it.", flush=True)
    page.block_thread()
