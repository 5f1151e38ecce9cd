"""The asset: the state dict of a CLIP with the trained rows of the vocabulary only."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor


def save_asset(state: dict[str, Tensor], vocab_rows: Int[Tensor, "V"], path: Path) -> None:
    """Write half-precision weights and the byte-pair ids of the embedding's rows."""
    half = {name: weight.detach().half().clone() for name, weight in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": half, "vocab_rows": vocab_rows}, path)
