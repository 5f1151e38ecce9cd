"""A trained model as a graph for other runtimes: image -> logits, kept patches.

Text features, and the bank moved towards them, do not depend on the image: they are constants of
the graph. It leaves out tensors that it does not use, such as those of the text tower.
"""

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode

from models.classifier import CLIPClassifier
from models.spotlighter.model import SpotlightedCLIP
from runs.logs import quiet

BATCH = 3  # of the pictures that a graph is traced with; any other size runs as well
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
Graph = Callable[[Tensor], Tensor]  # as in its file: pictures (B, 3, H, W) to logits (B, C)


class ExportForm(nn.Module):
    """The forward pass of an evaluation, for a batch of any size, which is not split into parts.

    The model is float32, on the CPU, and must not be used for anything else afterwards. Its logits
    are divided by `temperature`. A ValueError says that it selects patches at random.
    """

    def __init__(
        self, model: CLIPClassifier | SpotlightedCLIP, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.model, self.temperature = model.eval(), temperature
        self.selects = isinstance(model, SpotlightedCLIP)
        model.tuner.text.in_parts = False
        self.output_names = ["logits", "kept_patches"] if self.selects else ["logits"]
        if self.selects and model.head.options.select == "random":
            raise ValueError(
                "a run with TRAINER.SPOTLIGHTER.SELECT random keeps other patches each time, which "
                "a graph cannot repeat; export a run that selects by score"
            )

    def forward(
        self, image: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C"], Int[Tensor, "B K"]] | tuple[Float[Tensor, "B C"]]:
        """Normalised pictures -> logits, and the kept patches of models that select, best first."""
        model = self.model
        if self.selects:
            base = model.base
            tokens = base.features(base.encode_tower(image, model.patch_path, base.pruner))
            out = model.logits_from_tokens(tokens)
            return self.scaled(out.logits), out.head.selection.indices
        cls = model.features(model.encode_tower(image, None, model.pruner)).cls
        return (self.scaled(model.classify(cls, model.text_features(cls))),)

    def scaled(self, logits: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        """Divide by the temperature; at 1 the graph has no such step."""
        return logits if self.temperature == 1 else logits / self.temperature


class UsedTensors(TorchFunctionMode):
    """Collects the id of every tensor that a computation takes."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: set[int] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Collect the inputs; change nothing."""
        for value in (*args, *(kwargs or {}).values()):
            several = value if isinstance(value, list | tuple) else (value,)
            self.tensors |= {id(one) for one in several}
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def trace(form: ExportForm, size: tuple[int, int]) -> ExportedProgram:
    """The graph of a form, without unused tensors, for pictures (H, W) and batches of any size."""
    image = torch.zeros(BATCH, 3, *size, device="cpu")
    form(image)  # the text side is kept from now on
    with UsedTensors() as used:
        form(image)
    for module in form.modules():
        for held in (module._parameters, module._buffers):
            unused = [name for name, value in held.items() if id(value) not in used.tensors]
            held.update(dict.fromkeys(unused))
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(form, (image,), dynamic_shapes={"image": {0: batch}})


def require_packages() -> None:
    """Refuse early, with a ModuleNotFoundError, where a package for ONNX is missing."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"--format onnx needs the package {error.name}, which is missing; install it with: "
                "pip install -r requirements-export.txt (--format torch needs none)"
            ) from error


def write_program(program: ExportedProgram, _: list[str], path: Path) -> Graph:
    """Save a program in torch's own format, which has no names for outputs."""
    torch.export.save(program, path)
    run = torch.export.load(path).module()
    return lambda image: run(image)[0]


def write_onnx(program: ExportedProgram, output_names: list[str], path: Path) -> Graph:
    """Translate a program with one input, `image`, whose first axis is the batch, and save it."""
    import onnxruntime

    with quiet("torch.onnx", "onnxscript", level=logging.ERROR):
        found = torch.onnx.export(
            program, (), dynamo=True, verbose=False, output_names=output_names,
            input_names=["image"], dynamic_shapes={"image": {0: "batch"}},
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort()},
        )
    assert found is not None
    found.save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])


def _stable_sort() -> Any:
    """aten.sort.stable in ONNX, whose TopK keeps the order of equal values."""
    from onnxscript import opset18 as op

    def sort(x: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
        length = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))  # type: ignore[type-var]
        return op.TopK(x, length, axis=dim, largest=int(descending), sorted=1)

    return sort
