"""A page in the browser: choose a photo, list the class names, press Predict.

It shows what a run and zero-shot CLIP predict, and on the photo the kept patches and both maps.
Without --model-dir it begins with the embedded tiny CLIP, tuned once on drawn pictures of food;
runs below output/ can be chosen on the page. The page is reachable from this machine only
(127.0.0.1) and loads nothing from the network.

From another machine: ssh -L 7860:127.0.0.1:7860 that-machine, then open http://127.0.0.1:7860

Usage:
    python tools/app.py                                  # the embedded model
    python tools/app.py --model-dir output/my_run --port 7861
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/app.py`
from runs.files import last_checkpoint
from runs.logs import quiet
from runs.processes import bound
from tools.shared.command_line import parser_of, reports_user_errors, whole

PROJECT = Path(__file__).parents[1]
LOOPBACK = "127.0.0.1"
EMBEDDED = Path("output/app/emoji_food")  # below the project
OUTPUT = PROJECT / "output"
MOST = 50  # runs that the page offers, the newest
MISSING = "the page needs Gradio; install it with: pip install -r requirements-app.txt"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    run = "run of train.py that the page begins with (default: the embedded model)"
    add("--model-dir", default="", metavar="RUN", help=run)
    add("--root", default="", help="folder of all data sets, if it moved (embedded model: data)")
    add("--port", type=whole(0, 65535), default=7860, help="default 7860; 0 takes a free one")
    add("--open", action="store_true", help="open the browser")
    return parser.parse_args(argv)


def embedded_run(root: str, folder: Path = EMBEDDED, *options: str) -> Path:
    """Return a run on all classes of EmojiFood, trained if there is none; options: KEY VALUE."""
    if last_checkpoint(PROJECT / folder) is not None:
        return PROJECT / folder
    print(f"Training Spotlighter on EmojiFood once, about a minute; it is kept in {folder} ...")
    command = [
        *(sys.executable, "train.py", "--root", root, "--seed", "1", "--trainer", "Spotlighter"),
        *("--dataset-config-file", "configs/datasets/emoji_food.yaml"),
        *("--config-file", "configs/trainers/Spotlighter/tiny_emoji.yaml"),
        *("--output-dir", str(folder), "DATASET.NUM_SHOTS", "16", "TEST.NO_TEST", "True"), *options,
    ]
    done = subprocess.run(
        command, cwd=PROJECT, check=False, stdout=subprocess.DEVNULL, preexec_fn=bound()
    )
    if done.returncode:
        raise ValueError(f"the training failed; {folder}/log.txt says more")
    return PROJECT / folder


def runs_to_choose(first: str | Path, output: Path = OUTPUT) -> dict[str, Path]:
    """Runs by the names that the page shows: `first`, the embedded one, the newest in `output`."""
    found: dict[Path, float] = {}
    for folder, inside, files in os.walk(output):
        if "config.yaml" in files and (checkpoint := last_checkpoint(Path(folder))) is not None:
            found[Path(folder)] = checkpoint.stat().st_mtime
            inside.clear()
    newest = sorted(found, key=lambda folder: found[folder], reverse=True)[:MOST]
    embedded = [PROJECT / EMBEDDED] if last_checkpoint(PROJECT / EMBEDDED) is not None else []
    runs: dict[str, Path] = {}
    for folder in map(Path, (first, *embedded, *newest)):
        if folder.resolve() not in {known.resolve() for known in runs.values()}:
            is_below = folder.is_relative_to(output.parent)
            name = str(folder.relative_to(output.parent) if is_below else folder)
            is_embedded = folder.resolve() == (PROJECT / EMBEDDED).resolve()
            runs["embedded tiny CLIP (food)" if is_embedded else name] = folder
    return runs


def serve(args: argparse.Namespace) -> None:
    """Serve the page until it is stopped."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(MISSING) from error
    from inference.web.answer import Answerer
    from inference.web.page import build_page, launch, upload_folder

    run = args.model_dir or str(embedded_run(args.root or "data"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # uploads go, too
    with quiet(), upload_folder() as uploads:
        page = build_page(Answerer(runs_to_choose(run), args.root), uploads)
        address = launch(page, uploads, LOOPBACK, args.port, args.open)
        print(f"The page is at {address}; Ctrl-C ends it.", flush=True)
        page.block_thread()


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    with suppress(KeyboardInterrupt):
        serve(parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
