"""Prompt embeddings -> text features."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.blocks import BeforeBlock, run_blocks, unit
from models.tokenizer import tokenize


class TextEncoder(nn.Module):
    """CLIP's text tower on embeddings instead of token ids, with a seam before every block.

    Differs from `CLIP.encode_text` in: it takes prompt embeddings, and of any length L up to the
    context length. The tower is causal, so positions behind the last EOS change nothing: callers
    cut them off, and the features stay equal.
    """

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.transformer = clip.transformer
        self.positional_embedding = clip.positional_embedding
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.token_embedding = clip.token_embedding

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tower's matrix products."""
        return self.text_projection.dtype

    def forward(
        self,
        prompts: Float[Tensor, "C L W"],
        eos: Int[Tensor, " C"],
        before_block: BeforeBlock | None = None,
    ) -> Float[Tensor, "C D"]:
        """Encode prompts.

        Args:
            prompts: token embeddings without positions, L up to the context length.
            eos: position of each prompt's end-of-text token.
            before_block: seam, see `models.blocks.BeforeBlock`.

        Returns:
            Text features as CLIP gives them: not unit length, in the tower's dtype.
        """
        length = prompts.shape[1]
        x = prompts.to(self.dtype) + self.positional_embedding[:length].to(self.dtype)
        x = run_blocks(self.transformer.resblocks, x, causal=True, before_block=before_block)
        last = x[torch.arange(len(x), device=x.device), eos]  # (C, W)
        return self.ln_final(last).to(self.dtype) @ self.text_projection

    @property
    def num_blocks(self) -> int:
        """Transformer blocks of the tower."""
        return len(self.transformer.resblocks)

    @torch.no_grad()
    def encode_raw(self, texts: list[str]) -> Float[Tensor, "C D"]:
        """Float32 features of plain sentences as CLIP gives them, no gradient."""
        tokens = tokenize(texts, self.positional_embedding.shape[0])
        tokens = tokens.to(self.text_projection.device)
        return self(self.token_embedding(tokens.ids), tokens.eos).float()

    def encode(self, texts: list[str]) -> Float[Tensor, "C D"]:
        """The same at unit length."""
        return unit(self.encode_raw(texts))
