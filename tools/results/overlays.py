"""What Spotlighter looked at, for the page."""

from __future__ import annotations

import io
import tempfile
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
    from datasets.pictures import open_picture
    from inference.open import open_run
    from tools.visualise import choose_pictures, draw

    with quiet():  # it introduces the data set otherwise
        trainer = open_run(folder, root)
    if trainer.model.head is None:
        raise ValueError(f"{folder} selects no patches")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "spotlight.png"
        draw(trainer, choose_pictures(trainer, number), path)
        buffer = io.BytesIO()
        open_picture(path).save(buffer, "JPEG", quality=70)
    text = f"{trainer.cfg.DATASET.NAME}: activation maps and the patches that were kept, by rank"
    return Picture(data_uri("jpeg", buffer.getvalue()), text)
