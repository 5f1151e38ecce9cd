"""An exported program as an ONNX file, and what onnxruntime makes of it."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tools.quiet import quiet

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def require_packages() -> None:
    """Refuse early where a package is missing.

    Raises:
        ModuleNotFoundError: names it, and what to do.
    """
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"--format onnx needs the package {error.name}, which is missing; install it with: "
                "pip install -r requirements-export.txt (--format torch needs none)"
            ) from error


def write_onnx(
    program: torch.export.ExportedProgram, output_names: Sequence[str], path: Path
) -> None:
    """Translate a program with one input, `image`, whose first axis is the batch, and save it."""
    with quiet("torch.onnx", logging.ERROR), quiet("onnxscript", logging.ERROR):
        found = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            input_names=["image"],
            output_names=list(output_names),
            dynamic_shapes={"image": {0: "batch"}},
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort()},
        )
    found.save(path)


def _stable_sort() -> Any:
    """aten.sort.stable in ONNX, whose TopK gives equals in the order in which they stand."""
    from onnxscript import opset18 as op

    def sort(x: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
        length = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
        return op.TopK(x, length, axis=dim, largest=int(descending), sorted=1)

    return sort


def run_onnx(path: Path, image: Tensor) -> Tensor:
    """The logits of onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])
