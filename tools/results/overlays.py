"""What Spotlighter looked at, for the page."""

from __future__ import annotations

import io
from pathlib import Path

from runs.quiet import quiet
from tools.results.figures import Picture, data_uri


def spotlights(folder: Path, root: str, number: int = 3) -> Picture:
    """Activation maps and kept patches of some test pictures of a run.

    Args:
        folder: of a Spotlighter run that was trained.
        root: of all data sets, if it moved.
        number: pictures.

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
    text = f"{trainer.cfg.DATASET.NAME}: activation maps and the patches that were kept, by rank"
    return Picture(data_uri("jpeg", buffer.getvalue()), text)
