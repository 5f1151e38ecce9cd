"""Names that the published projects give to what our modules learn."""

from __future__ import annotations

from torch import Tensor, nn

LAYER = {"inner": 0, "norm": 1, "outer": 3}


def published_name(ours: str) -> str:
    """The published name of something learned, without the prefix of the prompt learner."""
    part, _, rest = ours.partition(".")
    number, _, kind = rest.partition(".")
    if part == "vision":
        block = f"transformer.resblocks.{number}.VPT_shallow"
        return "image_encoder." + ("VPT" if number == "0" else block)
    if part == "text_deeper":
        return f"text_encoder.transformer.resblocks.{int(number) + 1}.VPT_shallow"
    if part in ("projector", "local"):
        module = "VPT_image_trans" if part == "projector" else "mid_image_trans"
        return f"{module}.conv1.{LAYER[number]}.{kind}"
    return "extractor.weight" if ours == "memory.extractor.weight" else ours


def published_shape(name: str, value: Tensor) -> Tensor:
    """Convolutions of one pixel have two axes more."""
    is_convolution = ".conv1." in name and value.dim() == 2
    return value[:, :, None, None] if is_convolution else value


def published_state(learned: nn.Module) -> dict[str, Tensor]:
    """What a tuner has learned, under the published names and in the published shapes."""
    named = {published_name(name): value for name, value in learned.named_parameters()}
    return {name: published_shape(name, value) for name, value in named.items()}
