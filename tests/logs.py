"""What the logs of a run hold, read back from their files."""

import json
import struct

BLOCK, HEAD = 32768, struct.Struct("<IHB")  # checksum, length, kind


def points(folder):
    """Every value in TensorBoard's files: (tag, step, number or bytes of a PNG), sorted."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    found = []
    for path in (folder / "tensorboard").glob("events.out.tfevents.*"):
        for record in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(record)
            for value in event.summary.value:
                number = value.HasField("simple_value")
                content = value.simple_value if number else value.image.encoded_image_string
                found.append((value.tag, event.step, content))
    return sorted(found, key=lambda point: point[:2])


def wandb_rows(folder):
    """Every row in the files of Weights & Biases: (step, {name: value}), in order of writing."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for data in _records(path.read_bytes()):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                values = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
                found.append((values["_step"], values))
    return found


def _records(content):
    """The records of a log in LevelDB's format, behind the 7 bytes of W&B's own."""
    place, whole = 7, b""
    while place + HEAD.size <= len(content):
        if BLOCK - place % BLOCK < HEAD.size:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = HEAD.unpack_from(content, place)
        place += HEAD.size
        whole += content[place : place + length]
        place += length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""
