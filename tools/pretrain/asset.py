"""The asset: the state dict of a CLIP with the trained rows of the vocabulary only."""

from __future__ import annotations

from pathlib import Path

import torch
from clip.model import CLIP, build_model
from jaxtyping import Int
from torch import Tensor

VOCABULARY = 49408  # byte-pair tokens of CLIP
EMBEDDING = "token_embedding.weight"


def save_asset(state: dict[str, Tensor], vocab_rows: Int[Tensor, "V"], path: Path) -> None:
    """Write half-precision weights and the byte-pair ids of the embedding's rows."""
    half = {name: weight.detach().half().clone() for name, weight in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": half, "vocab_rows": vocab_rows}, path)


def load_asset(path: Path) -> CLIP:
    """Build the CLIP of an asset, float32, in evaluation mode; rows never trained are zero."""
    asset = torch.load(path, map_location="cpu", weights_only=True)
    state, rows = dict(asset["state_dict"]), asset["vocab_rows"]
    trained = state[EMBEDDING]
    full = trained.new_zeros(VOCABULARY, trained.shape[1])
    state[EMBEDDING] = full.index_copy(0, rows, trained)
    return build_model(state).float().eval()
