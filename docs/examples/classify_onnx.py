"""Classify pictures with an exported model: only onnxruntime, numpy and Pillow are needed.

Usage: python classify_onnx.py EXPORTED PICTURE ...
"""

import json
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps, UnidentifiedImageError

with suppress(ImportError):  # for HEIC, as phones write it
    from pillow_heif import register_heif_opener

    register_heif_opener()
if len(sys.argv) < 3:
    sys.exit(__doc__)
folder, *pictures = map(Path, sys.argv[1:])
model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
how = model["preparation"]


def prepare(path: Path) -> np.ndarray:
    """Turn upright, resize by the short side, cut out the middle, normalise: (3, H, W)."""
    try:
        image = Image.open(path)
    except UnidentifiedImageError:
        cure = "save it as a JPEG, or, if it is HEIC, run: pip install pillow-heif"
        sys.exit(f"{path} cannot be read as a picture; {cure}")
    if how.get("turn_by_exif", True):  # phones store a picture as it lay, and say how to turn it
        image = ImageOps.exif_transpose(image)
    image = image.convert(how["mode"])
    short, side = min(image.size), how["resize_short_side"]
    size = [int(side * length / short) for length in image.size]
    image = image.resize(size, Image.Resampling[how["interpolation"].upper()])
    height, width = how["center_crop"]
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) / 255
    return ((pixels - how["mean"]) / how["std"]).transpose(2, 0, 1)


batch = np.stack([prepare(path) for path in pictures]).astype(np.float32)
(logits,) = session.run(["logits"], {"image": batch})
for path, row in zip(pictures, logits, strict=True):
    chance = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
    print(f"{path}\t{model['class_names'][row.argmax()]}\t{chance.max():.4f}")
