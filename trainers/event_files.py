"""TensorBoard's files of a run that goes on: what will be written again is taken out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)


def cut(folder: Path, epochs: int, batches: int) -> None:
    """Take out what was logged after some epochs; files that then hold nothing are removed.

    Dassl counts tags under `train/` in batches, all others in epochs. Those under `test/` are of
    the final evaluation, which is always to come.

    Args:
        folder: of the event files.
        epochs: that are done and stay.
        batches: in an epoch.
    """
    files = sorted(folder.glob("events.out.tfevents.*"))
    if not files:
        return
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        return  # whoever cannot read them will not add to them
    for path in files:
        events = [Event.FromString(record) for record in _records(path)]
        size = path.stat().st_size
        kept = [event for event in events if _shorten(event, epochs, batches)]
        if not any(event.HasField("summary") for event in kept):
            path.unlink()
            continue
        unfinished = path.with_name(f".{path.name}.unfinished")
        with unfinished.open("wb") as file:
            writer = RecordWriter(file)
            for event in kept:
                writer.write(event.SerializeToString())
        if unfinished.stat().st_size < size:
            unfinished.replace(path)
        unfinished.unlink(missing_ok=True)


def _records(path: Path) -> Iterator[bytes]:
    """The records of a file, up to one that a kill has left unfinished."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    with suppress(Exception):  # TensorBoard raises its own, by what is damaged
        yield from RawEventFileLoader(str(path)).Load()


def _shorten(event: object, epochs: int, batches: int) -> bool:
    """Take the values out of an event that are to be written again; False where none is left."""
    values = event.summary.value  # type: ignore[attr-defined]
    if not values:
        return True  # the head of the file
    step = event.step  # type: ignore[attr-defined]
    done = {"train": epochs * batches, "test": 0}
    stay = [v for v in values if step < done.get(v.tag.split("/")[0], epochs)]
    del values[:]
    values.extend(stay)
    return bool(stay)
