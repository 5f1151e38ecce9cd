"""A Spotlighter run on embedded pictures, for users without a run of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from runs.files import last_checkpoint
from runs.processes import bound

PROJECT = Path(__file__).parents[2]
FOLDER = Path("output/app/emoji_food")


def embedded_run(root: str, folder: Path = FOLDER, *options: str) -> Path:
    """The folder of a run on all classes of EmojiFood; trained now if there is none: a minute.

    Args:
        root: folder of all data sets; the pictures are drawn there if they are not.
        folder: of the run, below the project.
        options: KEY VALUE pairs for train.py.

    Raises:
        ValueError: the training failed.
    """
    if last_checkpoint(PROJECT / folder) is not None:
        return PROJECT / folder
    print(f"Training Spotlighter on EmojiFood once, about a minute; it is kept in {folder} ...")
    command = [
        *(sys.executable, "train.py", "--root", root, "--seed", "1", "--trainer", "Spotlighter"),
        *("--dataset-config-file", "configs/datasets/emoji_food.yaml"),
        *("--config-file", "configs/trainers/Spotlighter/tiny_emoji.yaml"),
        *("--output-dir", str(folder), "DATASET.NUM_SHOTS", "16", "TEST.NO_TEST", "True"),
        *options,
    ]
    done = subprocess.run(
        command, cwd=PROJECT, check=False, stdout=subprocess.DEVNULL, preexec_fn=bound()
    )
    if done.returncode:
        raise ValueError(f"the training failed; {folder}/log.txt says more")
    return PROJECT / folder
