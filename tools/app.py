"""A page in the browser: drop a picture, name classes, see what Spotlighter says and looks at.

Beside it stands what zero-shot CLIP says of the same classes. Without --model-dir the embedded
tiny CLIP serves, tuned once on drawn pictures of food. The page is reachable from this machine
only (127.0.0.1) and asks nothing of the network.

From another machine: ssh -L 7860:127.0.0.1:7860 that-machine, then open http://127.0.0.1:7860

Usage:
    python tools/app.py                                  # the embedded model, at once
    python tools/app.py --model-dir output/my_run --port 7861
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/app.py`
from runs.quiet import quiet
from tools.shared.command_line import parser_of, reports_user_errors, whole

LOOPBACK = "127.0.0.1"
MISSING = "the page needs Gradio; install it with: pip install -r requirements-app.txt"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--model-dir", default="", metavar="RUN", help="output folder of a run of train.py")
    add("--root", default="", help="folder of all data sets, if it moved (data for the embedded)")
    add("--port", type=whole(0, 65535), default=7860, help="0 takes a free one (7860)")
    add("--open", action="store_true", help="open the browser")
    return parser.parse_args(argv)


def start(args: argparse.Namespace) -> None:
    """Serve the page until it is stopped.

    Raises:
        ModuleNotFoundError: Gradio is not installed.
        OSError: the port is taken.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(MISSING) from error
    from inference.web.answer import Answerer
    from inference.web.embedded import embedded_run
    from inference.web.page import build_page, example_pictures, launch, upload_folder

    run = args.model_dir or str(embedded_run(args.root or "data"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # uploads go, too
    with quiet(), upload_folder() as uploads:
        page = build_page(Answerer(run, args.root), uploads, example_pictures(run, args.root))
        address = launch(page, uploads, LOOPBACK, args.port, args.open)
        print(f"The page is at {address}; Ctrl-C ends it.", flush=True)
        page.block_thread()


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Serve; a mistake of the user's ends in one sentence and exit code 2."""
    with suppress(KeyboardInterrupt):
        start(parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
