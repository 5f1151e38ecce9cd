"""fp32 | fp16 | amp | bf16: what each means for the model and for the forward pass."""

import logging

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.classifier import General
from models.clip.blocks import cast_products
from models.clip.image_tower import ResNetEncoder, VisualEncoder
from models.clip.text_tower import TextEncoder
from runs import parallel

logger = logging.getLogger(__name__)


class Precision:
    """Casts a model once; gives the context of the forward pass and scales the loss.

    - fp32: everything in float32.
    - fp16: the frozen towers in half precision, what is learned in float32. CUDA only; elsewhere
      fp32 with a warning.
    - amp: automatic mixed precision (float16 and a scaled loss on CUDA, bfloat16 elsewhere).
    - bf16: the image tower in bfloat16, all else in float32.
    """

    def __init__(self, name: str, model: nn.Module, device: torch.device) -> None:
        self.name, self.device, self.amp_dtype = name, device, None
        scales = name == "amp" and device.type == "cuda"
        self.scaler = torch.amp.GradScaler("cuda", enabled=scales)  # else it does nothing
        if name == "fp16" and device.type != "cuda":
            logger.warning("PREC fp16 needs CUDA: on %s it means fp32", device.type)
        elif name == "fp16":
            cast_towers(model, torch.float16, (VisualEncoder, ResNetEncoder, TextEncoder))
        elif name == "bf16":
            cast_towers(model, torch.bfloat16, (VisualEncoder, ResNetEncoder))
        elif name == "amp":
            self.amp_dtype = torch.float16 if scales else torch.bfloat16

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        dtype = self.amp_dtype or torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.amp_dtype is not None)

    def descend(self, optimiser: Optimizer, loss: Tensor, general: General | None) -> None:
        """Gradients and one optimiser step; with a scaled loss in float16.

        A general loss has gradients of its own, which change those of the loss.
        """
        optimiser.zero_grad()
        if general is None:
            torch.autograd.backward(self.scaler.scale(loss))
        else:
            self.set_projected(optimiser, loss, general)
        self.scaler.step(optimiser)
        self.scaler.update()

    def set_projected(self, optimiser: Optimizer, loss: Tensor, general: General) -> None:
        """Gradients of a loss, each projected by that of the general loss; means over processes."""
        learned = [p for group in optimiser.param_groups for p in group["params"]]
        # Before the other, for only `backward` tells DistributedDataParallel that a step is over.
        directions = parallel.averaged(
            torch.autograd.grad(
                self.scaler.scale(general.loss), learned, retain_graph=True, materialize_grads=True
            )
        )
        torch.autograd.backward(self.scaler.scale(loss))
        for parameter, direction in zip(learned, directions, strict=True):
            if parameter.grad is not None:
                parameter.grad = general.project(parameter.grad, direction)


def cast_towers(model: nn.Module, dtype: torch.dtype, kinds: tuple[type, ...]) -> None:
    """Matrix products of the frozen towers in a smaller dtype; a teacher's, too."""
    for part in model.modules():
        if isinstance(part, kinds):
            cast_products(part, dtype)
