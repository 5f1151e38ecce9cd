"""Maps and kept patches of a run, for the report's page."""

from __future__ import annotations

import io
from pathlib import Path

from runs.logs import quiet
from tools.results.figures import Picture, data_uri


def spotlights(folder: Path, root: str, number: int = 3) -> Picture:
    """Maps and kept patches of some test pictures of a run; `root` if its data sets moved.

    Raises:
        ValueError: the run selects no patches.
        OSError: its weights or pictures are gone.
    """
    from tools.visualise import choose_pictures, draw, open_spotlighter

    with quiet():  # the log describes the data set otherwise
        trainer = open_spotlighter(folder, root)
    buffer = io.BytesIO()
    draw(
        trainer, choose_pictures(trainer, number), buffer, format="jpeg", pil_kwargs={"quality": 70}
    )
    text = (
        f"{trainer.cfg.DATASET.NAME}: relevance of patches to the picture (sample-wise) and to the "
        "class names (semantic-wise), and the kept patches by rank"
    )
    return Picture(data_uri("jpeg", buffer.getvalue()), text)
